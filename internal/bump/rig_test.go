package bump

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/rules"
	"cairn.dev/cairn/internal/scan"
	"cairn.dev/cairn/internal/usage"
)

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// rig is a forge, registries and any number of engines that share them.
type rig struct {
	*testing.T
	ctx   context.Context
	clock *clock.Fake
	forge *forgetest.Memory
	regs  *registries
	rules func(file []byte) (*Rules, error)
	led   *ledger
	log   *slog.Logger
	dir   string
	quiet time.Duration
	repos []string // that are watched
	site  Forge    // forge, when nil
}

func newRig(t *testing.T) *rig {
	t.Helper()
	c := clock.NewFake(epoch)
	return &rig{T: t, ctx: t.Context(), clock: c, forge: forgetest.NewMemory(c, "cairn-bot"), regs: &registries{tags: map[string][]catalog.Tag{}, clock: c},
		rules: plainRules, led: &ledger{uses: map[image.Digest][]usage.Use{}}, dir: t.TempDir(), repos: []string{"team/app"}, log: slog.New(slog.DiscardHandler)}
}

// engine opens an engine with a database of that name; it is not run.
func (g *rig) engine(name string) *Engine {
	g.Helper()
	e, closeDB := g.open(name)
	g.Cleanup(closeDB)
	return e
}

func (g *rig) open(name string) (*Engine, func()) {
	g.Helper()
	d, err := db.Open(g.ctx, db.Config{Path: filepath.Join(g.dir, name+".db"), Schema: Schema, Sync: db.Normal})
	if err != nil {
		g.Fatal(err)
	}
	site := g.site
	if site == nil {
		site = g.forge
	}
	e, err := New(g.ctx, Config{Sources: []Source{{Name: "forge", Repositories: g.repos, Forge: site}}, Interval: time.Hour, Quiet: g.quiet},
		Deps{DB: d, Scanner: toy{}, Rules: g.rules, Choose: newest, Catalog: g.regs, Registry: ours{g.regs}, Ledger: g.led, Clock: g.clock, Log: g.log})
	if err != nil {
		g.Fatal(err)
	}
	return e, func() { _ = d.Close() }
}

// pass makes one pass over team/app; an error fails the test.
func (g *rig) pass(e *Engine) {
	g.Helper()
	if err := g.try(e); err != nil {
		g.Fatal(err)
	}
}

func (g *rig) try(e *Engine) error {
	g.Helper()
	r, err := e.find("forge/team/app")
	if err != nil {
		g.Fatal(err)
	}
	err = e.pass(g.ctx, r)
	var soon *soonError
	if errors.As(err, &soon) {
		return nil
	}
	return err
}

// add makes team/app with these files.
func (g *rig) add(files map[string]string) { g.forge.AddRepository("team/app", files) }

// push puts a tag into a registry.
func (g *rig) push(repository, tag string) image.Digest { return g.regs.push(repository, tag) }

// open pulls of team/app.
func (g *rig) pulls(open bool) (out []forge.Pull) {
	for _, p := range g.forge.Pulls("team/app") {
		if p.Open == open {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b forge.Pull) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// one is the only open pull request.
func (g *rig) one() forge.Pull {
	g.Helper()
	list := g.pulls(true)
	if len(list) != 1 {
		for _, p := range g.forge.Pulls("team/app") {
			g.Logf("#%d open=%v %s %s", p.Number, p.Open, p.Branch, p.Title)
		}
		g.Fatalf("%d pull requests are open, want one", len(list))
	}
	return list[0]
}

func (g *rig) none() {
	g.Helper()
	if list := g.pulls(true); len(list) > 0 {
		g.Fatalf("open: %s", list[0].Title)
	}
}

// holds checks what a pull request makes of a file.
func (g *rig) holds(p forge.Pull, path, want string) {
	g.Helper()
	if got := g.forge.Files("team/app", p.Head)[path]; got != want {
		g.Fatalf("%s at the head of #%d: %q, want %q", path, p.Number, got, want)
	}
}

// status of the image whose value is that.
func (g *rig) status(e *Engine, value string) ImageStatus {
	g.Helper()
	st, err := e.Repository("team/app")
	if err != nil {
		g.Fatal(err)
	}
	for _, s := range st.Images {
		if s.Value == value {
			return s
		}
	}
	g.Fatalf("no status of %s in %+v", value, st.Images)
	return ImageStatus{}
}

// toy reads lines `name = "reference"` of files that end in .tf.
type toy struct{}

func (toy) Load(ctx context.Context, r io.Reader, ignore []string) (*scan.Loaded, error) {
	return scan.Tar(ctx, r, ignore, nil)
}

func (toy) Scan(ctx context.Context, t *code.Tree, o code.Options) (*code.Result, error) {
	res := &code.Result{}
	for _, p := range t.Paths() {
		f, err := t.Read(p)
		if err != nil || !strings.HasSuffix(p, ".tf") || image.MatchAny(o.Ignore, p) {
			continue
		}
		if strings.Contains(string(f.Data), "BROKEN") {
			res.Problems = append(res.Problems, code.Problem{Place: code.Place{File: p, Line: 1}, Text: "it is broken"})
			continue
		}
		off := 0
		for line := range strings.Lines(string(f.Data)) {
			name, rest, ok := strings.Cut(line, " = \"")
			if value, _, closed := strings.Cut(rest, "\""); ok && closed {
				start := off + len(name) + 4
				dir := filepath.Dir(p)
				im := code.Image{ID: p + "#" + name, Format: code.Terraform, Dir: dir, Address: name, Place: code.PlaceOf(f, start), Value: value,
					Sources: []code.Range{{File: p, Start: start, End: start + len(value)}}}
				im.Chain = []code.Step{{Name: name, Place: im.Place}}
				if strings.Contains(line, "# fixed") {
					im.Fixed = "it is made elsewhere"
				}
				res.Images = append(res.Images, im)
			}
			off += len(line)
		}
	}
	slices.SortFunc(res.Images, func(a, b code.Image) int { return strings.Compare(a.ID, b.ID) })
	return res, nil
}

// prefix is that of our branches.
const prefix = "cairn/"

// plainRules are the defaults; a file that says BAD is broken, and one of words
// sets what the words are.
func plainRules(file []byte) (*Rules, error) {
	r := &Rules{Prefix: prefix, Schedule: func(time.Time) bool { return true }, Subject: rules.Default().Subject}
	text := string(file)
	if strings.Contains(text, "BAD") {
		return nil, errors.New(".cairn.yaml:1: unknown key \"BAD\"")
	}
	if strings.Contains(text, "closed") {
		r.Schedule = func(time.Time) bool { return false }
	}
	if strings.Contains(text, "max2") {
		r.MaxOpen = 2
	}
	if strings.Contains(text, "hour1") {
		r.PerHour = 1
	}
	r.Off = strings.Contains(text, "off")
	r.For = func(im code.Image) Rule {
		rule := Rule{Automerge: strings.Contains(text, "automerge")}
		if strings.Contains(text, "together") {
			rule.Group = "everything"
		}
		return rule
	}
	return r, nil
}

// newest chooses the greatest tag by its bytes.
func newest(ref string, _ choose.Policy, f choose.Facts) choose.Choice {
	p, err := code.ParseReference(ref)
	if err != nil {
		return choose.Choice{State: choose.Unknown, Reason: err.Error()}
	}
	best := p.Tag
	for _, t := range f.Tags {
		if t.Name > best {
			best = t.Name
		}
	}
	if best == p.Tag {
		return choose.Choice{State: choose.Current, Reason: "nothing newer than " + p.Tag}
	}
	to := p
	to.Tag = best
	return choose.Choice{State: choose.Newer, To: to.String(), Tag: best, Reason: best + " is newer than " + p.Tag}
}

// registries are a catalog in memory. Repositories of cairn.test are ours.
type registries struct {
	mu    sync.Mutex
	clock clock.Clock
	tags  map[string][]catalog.Tag
	fail  map[string]error
	asked int
}

func (s *registries) push(repository, tag string) image.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := image.Digest(fmt.Sprintf("sha256:%064x", len(repository)*1000+int(tag[0])*100+len(s.tags[repository])))
	s.tags[repository] = append(slices.DeleteFunc(slices.Clone(s.tags[repository]), func(t catalog.Tag) bool { return t.Name == tag }),
		catalog.Tag{Name: tag, Digest: d, Since: s.clock.Now(), Pushed: true})
	return d
}

func (s *registries) Tags(_ context.Context, repository string) ([]catalog.Tag, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if err := s.fail[repository]; err != nil {
		return nil, err
	}
	if s.tags[repository] == nil {
		return nil, catalog.ErrNotFound
	}
	return s.tags[repository], nil
}

func (s *registries) Lookup(ctx context.Context, repository, tag string) (image.Digest, error) {
	tags, err := s.Tags(ctx, repository)
	for _, t := range tags {
		if t.Name == tag {
			return t.Digest, nil
		}
	}
	return "", cmp.Or(err, error(catalog.ErrNotFound))
}

func (s *registries) Image(_ context.Context, repository string, d image.Digest) (catalog.Image, error) {
	return catalog.Image{Digest: d, Since: epoch.Add(-72 * time.Hour), Size: 1e6, Platforms: []image.Platform{{OS: "linux", Architecture: "amd64"}}}, nil
}

type ours struct{ *registries }

func (ours) Name(repository string) (string, string) {
	own, is := strings.CutPrefix(repository, "cairn.test/")
	if !is {
		own = ""
	}
	return repository, own
}

func (o ours) Resolve(ctx context.Context, repository, tag string) (image.Digest, error) {
	d, err := o.Lookup(ctx, "cairn.test/"+repository, tag)
	if errors.Is(err, catalog.ErrNotFound) {
		return "", nil
	}
	return d, err
}

// ledger keeps intervals, and knows uses.
type ledger struct {
	mu   sync.Mutex
	uses map[image.Digest][]usage.Use
	ivs  []usage.Interval
}

func (l *ledger) Uses(d image.Digest) []usage.Use { return l.uses[d] }

func (l *ledger) Reporters() []usage.Reporter {
	return []usage.Reporter{{Name: "prod", Platforms: []usage.Platform{{OS: "linux", Architecture: "amd64", Count: 3}, {OS: "linux", Architecture: "arm64", Count: 1}}},
		{Name: "edge", Platforms: []usage.Platform{{OS: "linux", Architecture: "arm64", Count: 9}}}}
}

func (l *ledger) Uncovered() []usage.Interval {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ivs)
}

func (l *ledger) OpenInterval(_ context.Context, iv usage.Interval) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	iv.ID = int64(len(l.ivs) + 1)
	l.ivs = append(l.ivs, iv)
	return iv.ID, nil
}

func (l *ledger) CloseInterval(_ context.Context, id int64, at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ivs[id-1].To = at
	return nil
}

// doubts are the open intervals.
func (l *ledger) doubts() (out []usage.Interval) {
	for _, iv := range l.Uncovered() {
		if iv.To.IsZero() {
			out = append(out, iv)
		}
	}
	return out
}
