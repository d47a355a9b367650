package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is ours stays ours.
func TestInherited(t *testing.T) {
	got := inherited([]string{"PATH=/bin", "CAIRN_TOKEN=secret", "CAIRN_SERVER=x", "LANG=C"})
	if !slices.Equal(got, []string{"PATH=/bin", "LANG=C"}) {
		t.Errorf("tasks get %q", got)
	}
}

func TestComplete(t *testing.T) {
	c := Config{}
	if err := c.complete(); err == nil {
		t.Error("a worker of no server")
	}
	c.Server = "http://127.0.0.1:1"
	if err := c.complete(); err != nil || c.Pool != "default" || c.Slots != 1 || c.Name == "" || c.Scratch == "" {
		t.Errorf("completed to %+v: %v", c, err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for keep, want := range map[string]string{dir: "", filepath.Join(dir, "nothing"): "it is not there", file: "it is no folder", "data": "whole path"} {
		c.Keep = []string{keep}
		if err := c.complete(); (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), keep)) {
			t.Errorf("to share %s: %v, want %q", keep, err, want)
		}
	}
}

// The file of a secret is read whenever it is needed.
func TestSecretChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	c := Config{Server: "http://127.0.0.1:1", Token: "other", TokenFile: file}
	api, err := c.api()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Secret(); err == nil {
		t.Error("a secret of no file")
	}
	for _, want := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := api.Secret(); err != nil || got != want {
			t.Errorf("the secret is %q, %v; want %q", got, err, want)
		}
	}
}
