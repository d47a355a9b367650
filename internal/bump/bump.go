// Package bump moves code to newer images: it watches repositories of code and
// registries, and keeps one pull request per group of images on a forge.
//
// It owns what is proposed and what is held, and why ([Status]); bump.db, which
// remembers scans, what people declined and how many pull requests were opened;
// and the uses that code makes of images ([Engine.InUse]). It promises that a
// group of images has one pull request and never two, whenever the process ends
// and however many of them there are; that a commit of a person on one of its
// branches is never moved or lost; that nothing is proposed which was not
// verified by reading the changed code again; and that images are kept while it
// does not know what code needs. What is open is found by asking the forge: the
// database makes it faster and remembers what no forge knows. It reads no
// format, knows no forge's API and chooses no version: code, forge and choose do.
package bump

import (
	"context"
	"io"
	"log/slog"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/scan"
	"cairn.dev/cairn/internal/usage"
)

// Defaults of [Config].
const (
	DefaultInterval = time.Hour
	DefaultQuiet    = 500 * time.Millisecond
)

// A Source is one forge, and the repositories there that are looked at.
type Source struct {
	// Name is what people call it in commands and in the paths of webhooks.
	Name string
	// Repositories are names or globs (image.Glob) of them, as the forge spells them.
	Repositories []string
	// Interval between two looks at a repository; see [Config.Interval].
	Interval time.Duration
	Forge    Forge
	// Hooks reads its webhooks; nil: there are none.
	Hooks forge.Hooks
	// Secret of its webhooks, read whenever it is needed.
	Secret func() ([]byte, error)
}

// Forge is what bump asks of a forge ([forge.Forge]).
type Forge interface {
	forge.Code
	forge.Pulls
	forge.Issues
	Account(ctx context.Context) (string, error)
	Repositories(ctx context.Context) ([]string, error)
}

// Scanner reads code and changes it (package scan).
type Scanner interface {
	// Load reads a forge's archive.
	Load(ctx context.Context, r io.Reader, ignore []string) (*scan.Loaded, error)
	Scan(ctx context.Context, t *code.Tree, o code.Options) (*code.Result, error)
}

// Registry is what bump asks of our own registry. All of it is answered without
// a request.
type Registry interface {
	// Name is the one name of a repository that can be written in several ways,
	// and, when it is ours, what it is called in our registry; "" when not.
	Name(repository string) (name, own string)
	// Resolve is the digest that a tag names there, hidden images included; ""
	// when there is none.
	Resolve(ctx context.Context, repository, tag string) (image.Digest, error)
}

// Ledger is what bump asks and tells the ledger of uses ([usage.Ledger]).
type Ledger interface {
	Uses(d image.Digest) []usage.Use
	Uncovered() []usage.Interval
	Reporters() []usage.Reporter
	OpenInterval(ctx context.Context, iv usage.Interval) (int64, error)
	CloseInterval(ctx context.Context, id int64, at time.Time) error
}

// Config of an [Engine]. Zero values take the defaults of this package.
type Config struct {
	Sources []Source
	// Interval between two looks at a repository, of sources that name none.
	Interval time.Duration
	// Quiet is how long no further tag may be pushed before pull requests are
	// made, so that tags pushed together make one; at most twice that is waited.
	Quiet time.Duration
	// Workers is how many repositories are worked on at once; 4 when zero.
	Workers int
	// Cache bounds the bytes of the trees that are kept ready; 256 MiB when zero.
	Cache int64
	// URL is where people reach this server, for links; may be empty.
	URL string
}

// Deps are what an [Engine] works with. Registry and Ledger may be nil: then no
// image is ours, and nobody runs any.
type Deps struct {
	DB      *db.DB // opened with Schema and db.Full
	Scanner Scanner
	// Rules reads a .cairn.yaml ([ReadRules]), nil bytes for none.
	Rules    func(file []byte) (*Rules, error)
	Choose   func(ref string, p choose.Policy, f choose.Facts) choose.Choice
	Catalog  catalog.Catalog
	Pushes   *catalog.Feed // nil: nobody tells of pushes
	Registry Registry
	Ledger   Ledger
	Clock    clock.Clock
	Log      *slog.Logger
}
