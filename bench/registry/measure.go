package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/bench/load"
)

// A measurement compares contenders, or runs one thing, and holds the outcome
// to targets.
type measurement struct {
	name  string
	field bool // needs the servers
	run   func(ctx context.Context, o options, f *field) (result, error)
}

func measurements() []measurement {
	return []measurement{
		{"manifest", true, measureManifest},
		{"blob", true, measureBlob},
		{"push", true, measurePush},
		{"tags", true, measureTags},
		{"memory", true, measureMemory},
		{"ledger", false, measureLedger},
		{"collect", false, measureCollect},
		{"plan", false, measurePlan},
		{"containers", false, measureContainers},
	}
}

func measurementNames() []string {
	var names []string
	for _, m := range measurements() {
		names = append(names, m.name)
	}
	return names
}

func measureAll(ctx context.Context, o options) (*report, error) {
	r := &report{facts: machine(ctx, o)}
	var list []measurement
	needField := false
	for _, m := range measurements() {
		if len(o.only) == 0 || slices.Contains(o.only, m.name) {
			list = append(list, m)
			needField = needField || m.field
		}
	}
	var f *field
	if needField {
		var err error
		if f, err = startField(ctx, o); err != nil {
			return nil, err
		}
		defer func() {
			if f != nil {
				f.stop()
			}
		}()
		r.facts.versions = f.versions
	}
	for _, m := range list {
		if !m.field && f != nil { // idle servers should not share the memory
			f.stop()
			f = nil
		}
		say("measuring " + m.name)
		res, err := m.run(ctx, o, f)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", m.name, err)
		}
		r.results = append(r.results, res)
		fmt.Print(res.table())
	}
	r.facts.finish()
	return r, nil
}

// rows lists the medians of s in the order of list.
func rows(s samples, list []contender, unit string) []row {
	var out []row
	for _, c := range list {
		v := slices.Sorted(slices.Values(s[c.name]))
		out = append(out, row{c.name, s.median(c.name), unit, fmt.Sprintf("%s to %s", number(v[0]), number(v[len(v)-1]))})
	}
	return out
}

func measureManifest(ctx context.Context, o options, f *field) (result, error) {
	path := "/v2/" + repository + "/manifests/latest"
	var list []contender
	for _, s := range []*server{f.cairn, f.distribution, f.olareg, f.bare, f.nginx} {
		list = append(list, o.rate(s, 64, load.Get(s.addr, path, mediaType, int64(len(f.cargo.manifest)))))
	}
	s, err := interleave(ctx, o.rounds, list)
	if err != nil {
		return result{}, err
	}
	peers := min(s.ratio("cairn", "distribution"), s.ratio("cairn", "olareg"))
	bare := s.ratio("cairn", "bare")
	return result{
		name:  "Manifest GET",
		title: fmt.Sprintf("Manifest GET by tag, 64 connections, %d bytes", len(f.cargo.manifest)),
		rows:  rows(s, list, "/s"),
		verdicts: []verdict{{
			target: "≥ 4× distribution and olareg, or ≥ 0.75× a bare net/http handler",
			got:    fmt.Sprintf("%.1f× distribution, %.1f× olareg, %.2f× bare", s.ratio("cairn", "distribution"), s.ratio("cairn", "olareg"), bare),
			met:    peers >= 4 || bare >= 0.75,
		}},
	}, nil
}

func measureBlob(ctx context.Context, o options, f *field) (result, error) {
	path := "/v2/" + repository + "/blobs/" + f.cargo.layerDigest
	var list []contender
	for _, s := range []*server{f.cairn, f.distribution, f.olareg, f.nginx} {
		list = append(list, o.rate(s, 64, load.Get(s.addr, path, "", int64(len(f.cargo.layer)))))
	}
	s, err := interleave(ctx, o.rounds, list)
	if err != nil {
		return result{}, err
	}
	d, n := s.ratio("cairn", "distribution"), s.ratio("cairn", "nginx")
	return result{
		name:  "Blob GET",
		title: "Blob GET of 1 MiB, 64 connections",
		rows:  rows(s, list, "/s"),
		verdicts: []verdict{
			{"≥ 3× distribution", fmt.Sprintf("%.1f×", d), d >= 3},
			{"≥ 0.9× nginx", fmt.Sprintf("%.2f×", n), n >= 0.9},
		},
	}, nil
}

func measurePush(ctx context.Context, o options, f *field) (result, error) {
	const size = 64 << 10
	var list []contender
	for i, s := range f.registries() {
		p := load.NewPusher(s.addr, "bench/push", size, uint64(i+1))
		list = append(list, o.rate(s, 16, func(c *load.Conn, _, _ int) error {
			_, err := p.Push(c)
			return err
		}))
	}
	list = append(list, contender{"disk", func(ctx context.Context) (float64, error) {
		return disk(ctx, o.dir, 16, size, min(o.measure/4, time.Second), o.measure)
	}})
	// What one contender wrote and did not sync would be written by the next
	// one's sync: each begins with a clean disk.
	for i, c := range list {
		list[i].run = func(ctx context.Context) (float64, error) {
			unix.Sync()
			return c.run(ctx)
		}
	}
	s, err := interleave(ctx, o.rounds, list)
	if err != nil {
		return result{}, err
	}
	d, l, raw := s.ratio("cairn", "distribution"), s.ratio("cairn", "olareg"), s.ratio("cairn", "disk")
	return result{
		name:  "Push",
		title: "Push of a 64 KiB blob (POST and PUT), 16 connections; cairn durable, the others as they come; disk: files alone, one syncfs for each group of 16 writers",
		rows:  rows(s, list, "/s"),
		verdicts: []verdict{{
			target: "≥ 3× distribution and ≥ 1× olareg (which does not sync), or ≥ 0.6× the disk's group-sync rate",
			got:    fmt.Sprintf("%.1f× distribution, %.2f× olareg, %.2f× disk", d, l, raw),
			met:    d >= 3 && l >= 1 || raw >= 0.6,
		}},
	}, nil
}

func measureTags(ctx context.Context, o options, f *field) (result, error) {
	path := "/v2/" + tagged + "/tags/list"
	var list []contender
	for _, s := range f.registries() {
		list = append(list, o.rate(s, 64, load.Get(s.addr, path, "", -1)))
	}
	s, err := interleave(ctx, o.rounds, list)
	if err != nil {
		return result{}, err
	}
	d := s.ratio("cairn", "distribution")
	return result{
		name:     "Tags list",
		title:    "List of 100 tags, 64 connections",
		rows:     rows(s, list, "/s"),
		verdicts: []verdict{{"≥ 5× distribution", fmt.Sprintf("%.1f×", d), d >= 5}},
	}, nil
}

// measureMemory pushes and pulls one blob of 1 MiB and one that is 512 times
// as big: the second must not take more memory.
func measureMemory(ctx context.Context, o options, f *field) (result, error) {
	before, err := f.cairn.peakRSS()
	if err != nil {
		return result{}, err
	}
	size := int64(512 << 20)
	if o.small {
		size = 16 << 20
	}
	digest, err := pushZeros(ctx, f.cairn.addr, "bench/big", size)
	if err != nil {
		return result{}, err
	}
	c := load.NewConn(f.cairn.addr)
	defer c.Close()
	if err := load.Get(f.cairn.addr, "/v2/bench/big/blobs/"+digest, "", size)(c, 0, 0); err != nil {
		return result{}, err
	}
	after, err := f.cairn.peakRSS()
	if err != nil {
		return result{}, err
	}
	const slack = 16 << 20
	return result{
		name:  "Memory",
		title: fmt.Sprintf("Peak memory of cairn before and after a push and a pull of one blob of %s", bytesText(size)),
		rows:  []row{{"before", float64(before) / (1 << 20), " MiB", "after everything above"}, {"after", float64(after) / (1 << 20), " MiB", ""}},
		verdicts: []verdict{{
			target: "independent of blob size (less than 16 MiB more)",
			got:    bytesText(after-before) + " more",
			met:    after-before < slack,
		}},
	}, nil
}

func bytesText(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
