package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cairn.dev/cairn/test/parts"
)

// Distribution runs the registry that most people run, at the address, until the
// test ends. endpoints, if any, is a YAML list of who is told of pushes.
func Distribution(t testing.TB, address, endpoints string) *Process {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), address)
	if endpoints != "" {
		text += "notifications:\n  endpoints: " + endpoints + "\n"
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(parts.Path(t, "registry"), "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	return Serve(t, cmd, Answers("http://"+address+"/v2/"))
}

// Objects runs an object store over a folder, whose folders are its buckets,
// until the test ends, and returns its host and port. It speaks plain HTTP and
// has one account.
func Objects(t testing.TB, dir, region, user, secret string) (address string) {
	t.Helper()
	address = FreeAddress(t)
	cmd := exec.Command(parts.Path(t, "versitygw"), "--region", region, "--port", address, "posix", "--nometa", dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+user, "ROOT_SECRET_KEY="+secret)
	Serve(t, cmd, Listens(address))
	return address
}
