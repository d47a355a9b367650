package serve

import (
	"runtime"
	"runtime/debug"

	"cairn.dev/cairn/internal/api/wire"
)

// Version says what this binary was built from.
func Version() wire.Version {
	v := wire.Version{Version: "devel", Go: runtime.Version()}
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
