package demo

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

func TestProgram(t *testing.T) {
	for arch, p := range say {
		f, err := elf.NewFile(bytes.NewReader(program(arch)))
		if err != nil || f.Machine != p.machine || len(f.Progs) != 1 || f.Entry != f.Progs[0].Vaddr+64+56 {
			t.Errorf("%s: %+v, %v", arch, f, err)
		}
	}
	if program("abacus") != nil {
		t.Error("there is a program for an unknown processor")
	}
	b := program(runtime.GOARCH)
	if b == nil {
		t.Logf("not written for %s", runtime.GOARCH)
		return
	}
	name := filepath.Join(t.TempDir(), "say")
	if err := os.WriteFile(name, b, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(name, "one", "two words", "", "é").Output()
	if err != nil || string(out) != "one\ntwo words\n\né\n" {
		t.Errorf("%q, %v", out, err)
	}
}
