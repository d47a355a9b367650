package parts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// npm installs the packages into the folder work, and beside them a script
// with the program's name which starts it with the node that came along.
func (p Part) npm(ctx context.Context, work string) error {
	if err := os.WriteFile(filepath.Join(work, "package.json"), []byte("{\"private\": true}\n"), 0o644); err != nil {
		return fmt.Errorf("build %s: %w", p, err)
	}
	args := append([]string{"install", "--no-audit", "--no-fund", "--omit=dev"}, p.Npm...)
	cmd := exec.CommandContext(ctx, "npm", args...)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: npm %s: %w\n%s", p, strings.Join(args, " "), err, tail(out, 20))
	}
	script := "#!/bin/sh\nbin=$(dirname \"$(readlink -f \"$0\")\")/node_modules/.bin\nPATH=$bin:$PATH exec \"$bin/" + p.Name + "\" \"$@\"\n"
	if err := os.WriteFile(filepath.Join(work, p.Name), []byte(script), 0o755); err != nil {
		return fmt.Errorf("build %s: %w", p, err)
	}
	return nil
}
