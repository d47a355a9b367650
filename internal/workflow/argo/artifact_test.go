package argo_test

import (
	"encoding/json"
	"testing"
)

// What stands in the document is what the server is asked for.
func TestSources(t *testing.T) {
	tmpl := main(t, `    inputs:
      parameters: [{name: x, value: a}]
      artifacts:
      - {name: minio, path: /1, s3: {endpoint: "minio:9000", insecure: true, region: eu-1, bucket: b, key: "in/{{inputs.parameters.x}}.tgz", accessKeySecret: {name: key, key: id}, secretKeySecret: {name: key, key: secret}}}
      - {name: amazon, path: /2, archive: {none: {}}, s3: {endpoint: s3.amazonaws.com, bucket: b, key: k}}
      - {name: zip, path: /3, archive: {zip: {}}, http: {url: "https://example.org/x", headers: [{name: A, value: "{{inputs.parameters.x}}"}]}}
      - {name: git, path: /4, git: {repo: "https://example.org/r.git", revision: v1, passwordSecret: {name: pw, key: p}}}
    container: {image: busybox}
    outputs:
      artifacts:
      - {name: packed, path: /o1, s3: {endpoint: "minio:9000", insecure: true, bucket: b, key: o.tgz, accessKeySecret: {name: key, key: id}}}
      - {name: plain, path: /o2, archive: {none: {}}, http: {url: "https://example.org/put"}}
      - {name: kept, path: /o3}`)
	got, err := tmpl.Leaf.Render(scope{"inputs": map[string]any{"parameters": map[string]any{"x": "7"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"minio":  `false {"kind":"s3","url":"b","key":"in/7.tgz","endpoint":"http://minio:9000","region":"eu-1","secret":"key","archive":"tar"}`,
		"amazon": `false {"kind":"s3","url":"b","key":"k","endpoint":"https://s3.amazonaws.com"}`,
		"zip":    `false {"kind":"http","url":"https://example.org/x","headers":{"A":"7"},"archive":"zip"}`,
		"git":    `true {"kind":"git","url":"https://example.org/r.git","revision":"v1","secret":"pw"}`,
		"packed": `tar {"kind":"s3","url":"b","key":"o.tgz","endpoint":"http://minio:9000","secret":"key"}`,
		"plain":  `none {"kind":"http","url":"https://example.org/put"}`,
		"kept":   ` null`,
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	seen := map[string]string{}
	for _, in := range got.Inputs {
		seen[in.Name] = text(in.Folder) + " " + text(in.Source)
	}
	for _, out := range got.Outputs {
		seen[out.Name] = out.Archive + " " + text(out.To)
	}
	for name, w := range want {
		if seen[name] != w {
			t.Errorf("%s is %s, want %s", name, seen[name], w)
		}
	}
}
