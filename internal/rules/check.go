package rules

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
)

type reading = config.Reading[Rules]

// Bounds of what forges take, and of what anybody writes.
const (
	maxNames   = 20 // labels or reviewers
	maxName    = 100
	maxMessage = 200
	maxPrefix  = 50
)

var (
	nameRE     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$`)
	typeRE     = regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)
	pathRE     = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,31}$`)
	reviewerRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/@-]*$`)
	prefixRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*/?$`)
	fieldRE    = regexp.MustCompile(`\{[^}]*\}?`)
)

// check looks at what the types cannot say.
func check(r *reading) {
	v := r.Value
	for i, g := range v.Ignore {
		checkPath(r, entryKey(r, "ignore", i), g)
	}
	checkEnvironments(r)
	for i, s := range v.Sinks {
		key := where("sinks", i)
		if !typeRE.MatchString(s.Type) {
			r.Fail(either(r, key, "type"), "%.80q is no type of a resource: write one such as acme_service", s.Type)
		}
		if !pathRE.MatchString(s.Path) {
			r.Fail(either(r, key, "path"), "%.80q is no attribute: write one such as spec.container.image", s.Path)
		}
	}
	for i := range v.Rules {
		checkRule(r, i)
	}
	checkGroups(r)
	checkSchedule(r)
	if v.Limits.Open < 0 {
		r.Fail("limits.open", "%d is negative: write how many, or 0 for no limit", v.Limits.Open)
	}
	if v.Limits.PerHour < 0 {
		r.Fail("limits.per_hour", "%d is negative: write how many, or 0 for no limit", v.Limits.PerHour)
	}
	checkPeople(r, "", v.Labels, v.Reviewers)
	// git-check-ref-format, in the part of it that people use.
	if p := v.BranchPrefix; !prefixRE.MatchString(p) || len(p) > maxPrefix || strings.Contains(p, "..") || strings.Contains(p, ".lock/") || strings.Contains(p, "./") {
		r.Fail("branch_prefix", "%.80q: write up to %d letters, digits, '.', '_', '-' and '/', such as cairn/", p, maxPrefix)
	}
	checkMessage(r)
}

// either is the key if the file has it, else that of the entry around it.
func either(r *reading, entry, key string) string {
	if full := entry + "." + key; r.Has(full) {
		return full
	}
	return entry
}

// entryKey is the key of an entry of a list, which may be a single value.
func entryKey(r *reading, list string, i int) string {
	if key := where(list, i); r.Has(key) {
		return key
	}
	return list
}

// checkPath refuses globs of paths that can match nothing.
func checkPath(r *reading, key, g string) {
	switch {
	case image.CheckGlob(g) != nil:
		r.Fail(key, "%v", image.CheckGlob(g))
	case strings.HasPrefix(g, "/") || strings.HasPrefix(g, "./") || slices.Contains(strings.Split(g, "/"), ".."):
		r.Fail(key, "%.80q can never match: paths begin at the root of the repository, such as envs/prod", g)
	case strings.ContainsAny(g, "[]{}!\\"):
		r.Fail(key, "%.80q: brackets, braces and ! are not special here: use *, ** and ?, and a list for several", g)
	}
}

func checkEnvironments(r *reading) {
	for i, e := range r.Value.Environments {
		key := where("environments", i)
		if !nameRE.MatchString(e.Name) {
			r.Fail(either(r, key, "name"), "environment %d: %.80q is no name: use 1 to 50 letters, digits, '.', '_' and '-'", i+1, e.Name)
		}
		if j := slices.IndexFunc(r.Value.Environments[:i], func(o Environment) bool { return o.Name == e.Name }); j >= 0 {
			r.Fail(key+".name", "environment %d is called %q, too: choose another name", j+1, e.Name)
		}
		if len(e.Files) == 0 {
			r.Fail(either(r, key, "files"), "environment %d has no files: name its var-files, such as envs/prod.tfvars", i+1)
		}
		for j, f := range e.Files {
			if f == "" || path.IsAbs(f) || path.Clean(f) != f || f == ".." || strings.HasPrefix(f, "../") || strings.ContainsAny(f, "*?") {
				r.Fail(entryKey(r, key+".files", j), "%.80q: write the path of one file from the root of the repository, such as envs/prod.tfvars", f)
			}
		}
	}
}

func checkRule(r *reading, i int) {
	rule, key := r.Value.Rules[i], where("rules", i)
	checkMatch(r, key, rule.Images, rule.Directories)
	if p, err := rule.policy(); err != nil {
		r.Fail(either(r, key, "platforms"), "%v", err)
	} else if err := p.Check(); err != nil {
		field := "versioning"
		for name, try := range map[string]choose.Policy{"range": {Range: p.Range}, "tags": {Tags: p.Tags}, "ignore": {Ignore: p.Ignore}} {
			if try.Check() != nil {
				field = name
			}
		}
		r.Fail(either(r, key, field), "%v", err)
	}
	checkPeople(r, key+".", rule.Labels, rule.Reviewers)
	for j, o := range r.Value.Rules[:i] {
		if takesAll(o.Images) && takesAll(o.Directories) {
			r.Fail(key, "rule %d can never match: rule %d takes everything; the first match wins, so put the narrower rule first", i+1, j+1)
			break
		}
	}
}

func takesAll(globs []string) bool { return len(globs) == 0 || slices.Contains(globs, "**") }

func checkMatch(r *reading, key string, images, directories []string) {
	for i, g := range images {
		k := entryKey(r, key+".images", i)
		switch {
		case image.CheckGlob(g) != nil:
			r.Fail(k, "%v", image.CheckGlob(g))
		case strings.ToLower(g) != g:
			r.Fail(k, "glob %.80q can never match: names of repositories have no upper-case letters", g)
		case strings.ContainsAny(g, "[]{},!@ "):
			r.Fail(k, "glob %.80q can never match a repository: use *, ** and ?, and a list for several", g)
		case strings.LastIndexByte(g, ':') > strings.LastIndexByte(g, '/'):
			r.Fail(k, "glob %.80q has a tag: write the repository here, and the tags behind tags or range", g)
		}
	}
	for i, g := range directories {
		checkPath(r, entryKey(r, key+".directories", i), g)
	}
}

func checkGroups(r *reading) {
	for i, g := range r.Value.Groups {
		key := where("groups", i)
		if !nameRE.MatchString(g.Name) {
			r.Fail(either(r, key, "name"), "group %d: %.80q is no name: use 1 to 50 letters, digits, '.', '_' and '-'", i+1, g.Name)
		}
		if j := slices.IndexFunc(r.Value.Groups[:i], func(o Group) bool { return o.Name == g.Name }); j >= 0 {
			r.Fail(key+".name", "group %d is called %q, too: choose another name", j+1, g.Name)
		}
		if len(g.Images) == 0 && len(g.Directories) == 0 {
			r.Fail(key, "group %d names no images and no directories: write images: \"**\" for all", i+1)
		}
		checkMatch(r, key, g.Images, g.Directories)
	}
}

// checkSchedule also fills in the week.
func checkSchedule(r *reading) {
	s := r.Value.Schedule
	w := always()
	if len(s.Days) > 0 {
		w.days = [7]bool{}
	} else if r.Has("schedule.days") {
		r.Fail("schedule.days", "no day: name some, or write enabled: false")
	}
	for i, d := range s.Days {
		if err := parseDays(d, &w.days); err != nil {
			r.Fail(entryKey(r, "schedule.days", i), "%v", err)
		}
	}
	if len(s.Hours) > 0 {
		w.hours = nil
	} else if r.Has("schedule.hours") {
		r.Fail("schedule.hours", "no hour: name some, or write enabled: false")
	}
	for i, h := range s.Hours {
		hours, err := parseHours(h)
		if err != nil {
			r.Fail(entryKey(r, "schedule.hours", i), "%v", err)
		}
		w.hours = append(w.hours, hours)
	}
	// Local would be the zone of whatever machine this is.
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil || s.Timezone == "" || s.Timezone == "Local" {
		r.Fail("schedule.timezone", "%.80q is no time zone: write a name such as Europe/Berlin or UTC", s.Timezone)
		return
	}
	w.zone = zone
	r.Value.week = w
}

func checkPeople(r *reading, prefix string, labels, reviewers []string) {
	for what, names := range map[string][]string{"labels": labels, "reviewers": reviewers} {
		if len(names) > maxNames {
			r.Fail(prefix+what, "%d names: the limit is %d", len(names), maxNames)
		}
		for i, n := range names {
			key := entryKey(r, prefix+what, i)
			switch {
			case what == "labels" && (strings.TrimSpace(n) != n || n == "" || len(n) > maxName || strings.ContainsFunc(n, func(c rune) bool { return c < ' ' || c == ',' || c == 0x7f })):
				r.Fail(key, "%.80q is no label: write up to %d characters, without commas", n, maxName)
			case what == "reviewers" && (!reviewerRE.MatchString(n) || len(n) > maxName):
				r.Fail(key, "%.80q is no account: write its name, without an @ in front", n)
			}
		}
	}
}

func checkMessage(r *reading) {
	m := r.Value.Message
	if strings.TrimSpace(m) == "" || len(m) > maxMessage || strings.ContainsFunc(m, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		r.Fail("message", "write one line of at most %d characters", maxMessage)
	}
	known := []string{"{image}", "{from}", "{to}"}
	for _, f := range fieldRE.FindAllString(m, -1) {
		if !slices.Contains(known, f) {
			r.Fail("message", "%.80q is not known: there are %s%s", f, strings.Join(known, ", "), config.Nearest(f, known))
		}
	}
}

// parsePlatform reads linux/arm64 or linux/arm/v7.
func parsePlatform(s string) (image.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.ContainsFunc(parts, func(p string) bool { return !platformRE.MatchString(p) }) {
		return image.Platform{}, fmt.Errorf("%.80q is no platform: write os/architecture, such as linux/amd64 or linux/arm/v7", s)
	}
	p := image.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

var platformRE = regexp.MustCompile(`^[a-z0-9]{1,20}$`)
