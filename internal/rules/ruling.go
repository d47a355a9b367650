package rules

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
)

// A Ruling is what the rules say about one image.
type Ruling struct {
	Policy  choose.Policy
	Enabled bool // newer ones are proposed
	// Group is the name of the group that takes the image; "" when none does: then
	// it has a pull request for itself and its directory.
	Group     string
	Automerge bool
	Labels    []string // of the file and of the rule, each once
	Reviewers []string
	// Source says where it comes from, for people: "rule 2 of .cairn.yaml",
	// "the defaults", and the marker beside the image if there is one.
	Source string
}

// For answers about one image of the code. The error is about the words of a
// marker beside it, at [code.Image.Place]; nothing is to be proposed then.
func (r *Rules) For(img code.Image) (Ruling, error) {
	rule, source := defaultRule(), "the defaults"
	names := namesOf(img)
	if i := slices.IndexFunc(r.Rules, func(o Rule) bool { return matches(o.Images, o.Directories, names, img.Dir) }); i >= 0 {
		rule, source = r.Rules[i], fmt.Sprintf("rule %d of %s", i+1, Name)
	}
	p, err := rule.policy()
	if err != nil { // Parse has seen it
		return Ruling{}, err
	}
	out := Ruling{
		Policy: p, Enabled: r.Enabled && rule.Enabled, Automerge: rule.Automerge, Source: source,
		Labels: union(r.Labels, rule.Labels), Reviewers: union(r.Reviewers, rule.Reviewers),
	}
	// Versions of charts are semantic ones: Helm takes no others.
	if img.Chart && p.Versioning == "auto" {
		out.Policy.Versioning = "semver"
	}
	if i := slices.IndexFunc(r.Groups, func(g Group) bool { return matches(g.Images, g.Directories, names, img.Dir) }); i >= 0 {
		out.Group = r.Groups[i].Name
	}
	if img.Policy == "" {
		return out, nil
	}
	if out, err = ParsePolicy(img.Policy, out); err != nil {
		return Ruling{}, fmt.Errorf("marker at %s: %w", img.Place, err)
	}
	out.Source += ", and the marker beside the image"
	return out, nil
}

// namesOf are the ways to say which repository an image is of.
func namesOf(img code.Image) []string {
	// Versions of charts may have a '+', which no tag has.
	ref, err := code.ParseReference(strings.ReplaceAll(img.Value, "+", "_"))
	if err != nil {
		return []string{""}
	}
	full := ref.Repository()
	names := []string{full, ref.Name}
	if path, hub := strings.CutPrefix(full, "docker.io/"); hub {
		names = append(names, path, strings.TrimPrefix(path, "library/"))
	}
	return names
}

func matches(images, directories, names []string, dir string) bool {
	return (len(images) == 0 || slices.ContainsFunc(names, func(n string) bool { return image.MatchAny(images, n) })) &&
		(len(directories) == 0 || slices.ContainsFunc(directories, func(g string) bool { return below(image.Glob(g), dir) }))
}

// below reports whether the glob matches a directory or one around it.
func below(g image.Glob, dir string) bool {
	g = image.Glob(strings.TrimSuffix(string(g), "/"))
	dir = path.Clean("/" + dir)[1:]
	for d := dir; d != "." && d != ""; d = path.Dir(d) {
		// prod/** is prod as well, to everybody.
		if g.Match(d) || g.Match(d+"/") {
			return true
		}
	}
	return g == "**" || g == "." && dir == ""
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// policy is the rule in the words of choose.
func (r Rule) policy() (choose.Policy, error) {
	p := choose.Policy{
		Versioning: r.Versioning, Range: r.Range, Tags: r.Tags, Ignore: r.Ignore, Major: r.Major,
		Prerelease: r.Prerelease, Cooldown: r.Cooldown.Std(), Signed: r.Signed, Pin: pin(r.Pin),
	}
	for _, s := range r.Platforms {
		platform, err := parsePlatform(s)
		if err != nil {
			return choose.Policy{}, err
		}
		p.Needed = append(p.Needed, platform)
	}
	return p, nil
}

// pin is nil for what the code has now.
func pin(s string) *bool {
	yes := s == "always"
	if yes || s == "never" {
		return &yes
	}
	return nil
}

// maxWords bounds the text of a marker.
const maxWords = 500

// markerKeys are the words of a marker that take a value.
var markerKeys = []string{"versioning", "range", "tags", "ignore", "major", "prerelease", "pin", "cooldown", "signed", "platforms", "group", "automerge"}

// ParsePolicy reads the words of a marker beside an image, and returns what they
// make of the ruling that the file has for it:
//
//	semver  pushed  digest  regex:…      how tags are read
//	~1.2    >=1.2 <2                     a range
//	major=separate cooldown=3d tags=a,b  keys of a rule; commas divide lists
//	prerelease  signed  automerge        the same, =true
//	off                                  nothing is proposed
func ParsePolicy(words string, base Ruling) (Ruling, error) {
	if len(words) > maxWords {
		return Ruling{}, fmt.Errorf("policy of %d characters: the limit is %d", len(words), maxWords)
	}
	out := base
	var rng []string
	for word := range strings.FieldsSeq(words) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(word, "regex:"), slices.Contains(choose.Versionings, word):
			out.Policy.Versioning = word
		case word == "off":
			out.Enabled = false
		case isRange(word) || len(rng) > 0 && word == "-":
			rng = append(rng, word)
		default:
			if !ok && (key == "prerelease" || key == "signed" || key == "automerge") {
				value, ok = "true", true
			}
			if !ok || !slices.Contains(markerKeys, key) {
				known := slices.Concat(choose.Versionings, markerKeys, []string{"off"})
				return Ruling{}, fmt.Errorf("policy %.80q: %.80q is not known%s", words, word, config.Nearest(key, known))
			}
			if err := out.set(key, value); err != nil {
				return Ruling{}, fmt.Errorf("policy %.80q: %s: %w", words, key, err)
			}
		}
	}
	if len(rng) > 0 {
		out.Policy.Range = strings.Join(rng, " ")
	}
	if err := out.Policy.Check(); err != nil {
		return Ruling{}, fmt.Errorf("policy %.80q: %w", words, err)
	}
	return out, nil
}

// isRange: what begins like a version or an operator, and is no key=value.
func isRange(word string) bool {
	c := word[0]
	return strings.IndexByte("~^<>=!*|", c) >= 0 || '0' <= c && c <= '9' || word == "x" ||
		len(word) > 1 && c == 'v' && '0' <= word[1] && word[1] <= '9'
}

func (r *Ruling) set(key, value string) error {
	list := strings.Split(value, ",")
	one := func(known ...string) error {
		if !slices.Contains(known, value) {
			return fmt.Errorf("%.80q is not one of %s%s", value, strings.Join(known, ", "), config.Nearest(value, known))
		}
		return nil
	}
	truth := func(to *bool) error {
		*to = value == "true"
		return one("true", "false")
	}
	p := &r.Policy
	switch key {
	case "versioning":
		p.Versioning = value
	case "range":
		p.Range = value
	case "tags":
		p.Tags = list
	case "ignore":
		p.Ignore = list
	case "major":
		p.Major = value
		return one(choose.Majors...)
	case "prerelease":
		return truth(&p.Prerelease)
	case "signed":
		return truth(&p.Signed)
	case "automerge":
		return truth(&r.Automerge)
	case "pin":
		p.Pin = pin(value)
		return one("keep", "always", "never")
	case "cooldown":
		d, err := config.ParseDuration(value)
		p.Cooldown = d.Std()
		return err
	case "platforms":
		p.Needed = nil
		for _, s := range list {
			platform, err := parsePlatform(s)
			if err != nil {
				return err
			}
			p.Needed = append(p.Needed, platform)
		}
	case "group":
		r.Group = value
		if !nameRE.MatchString(value) {
			return fmt.Errorf("%.80q is no name: use 1 to 50 letters, digits, '.', '_' and '-'", value)
		}
	}
	return nil
}
