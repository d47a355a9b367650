package serve

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"cairn.dev/cairn/internal/api/wire"
)

// Version says what this binary was built from. stamped is what the linker was
// told (-X main.version), or "".
func Version(stamped string) (v wire.Version) {
	v = wire.Version{Version: "devel", Go: runtime.Version()}
	defer func() { v.Version = cmp.Or(stamped, v.Version) }()
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := b.Main.Version; m != "" && m != "(devel)" {
		v.Version = m
	}
	dirty := false
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && v.Commit != "" {
		v.Commit += "-dirty"
	}
	return v
}
