package parts

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is the module of the part's package.
func (p Part) module() string { return cmp.Or(p.Module, p.Package) }

// unpack copies the part's module into the folder dir. The module cache itself
// is read only, and nothing may be built in it.
func (p Part) unpack(ctx context.Context, proxy, dir string) error {
	// Asked from outside of any module: what this repository requires must not
	// have a say.
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", p.module()+"@"+p.Version)
	cmd.Dir = filepath.Dir(dir)
	cmd.Env = append(os.Environ(), "GOPROXY="+proxy, "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &module); jerr == nil && module.Error != "" {
		return fmt.Errorf("fetch its module: %s", module.Error)
	}
	if err != nil || module.Dir == "" {
		return fmt.Errorf("fetch its module: go %s: %w", strings.Join(cmd.Args[1:], " "), err)
	}
	if err := os.CopyFS(dir, os.DirFS(module.Dir)); err != nil {
		return fmt.Errorf("copy its module: %w", err)
	}
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if e.IsDir() {
			mode = 0o755
		}
		return os.Chmod(name, mode)
	})
}
