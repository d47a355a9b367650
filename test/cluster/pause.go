package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

// pauseTar is an image with one program, as the file that ctr imports: an OCI
// layout in a tar.
func pauseTar(program string) ([]byte, error) {
	bin, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	archive := func(files ...any) ([]byte, error) { // name, content, name, content, ...
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(files); i += 2 {
			content := files[i+1].([]byte)
			if err := w.WriteHeader(&tar.Header{Name: files[i].(string), Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
				return nil, err
			}
			if _, err := w.Write(content); err != nil {
				return nil, err
			}
		}
		return b.Bytes(), w.Close()
	}
	hash := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	var files []any
	add := func(mediaType string, b []byte) object {
		files = append(files, "blobs/sha256/"+hash(b), b)
		return object{"mediaType": mediaType, "digest": "sha256:" + hash(b), "size": len(b)}
	}
	layer, err := archive("pause", bin)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(object{"os": "linux", "architecture": runtime.GOARCH, "config": object{"Entrypoint": []string{"/pause"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + hash(layer)}}})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": add("application/vnd.oci.image.config.v1+json", config),
		"layers": []object{add("application/vnd.oci.image.layer.v1.tar", layer)}})
	if err != nil {
		return nil, err
	}
	top := add("application/vnd.oci.image.manifest.v1+json", manifest)
	top["annotations"] = object{"io.containerd.image.name": pauseImage, "org.opencontainers.image.ref.name": "1"}
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": []object{top}})
	if err != nil {
		return nil, err
	}
	files = append(files, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json", index)
	return archive(files...)
}
