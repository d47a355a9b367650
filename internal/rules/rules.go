// Package rules is .cairn.yaml at the root of a repository of code: what people
// say about how its images are moved to newer ones.
//
// It owns the names, defaults, bounds and documentation of that file, and the
// words that a marker beside an image may hold. It promises that nothing in
// them is silently ignored, that everything wrong in a file is told at once,
// each with its line and the cure, that no file at all means good defaults, and
// that the same file, image and time give the same answer. It opens no file,
// chooses no image and proposes nothing.
package rules

import (
	"fmt"
	"reflect"
	"strings"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/config"
)

// Name of the file, from the root of a repository.
const Name = ".cairn.yaml"

// Rules is the whole of .cairn.yaml. The doc tags are its documentation. It is
// not changed once it was read, and safe for concurrent use.
type Rules struct {
	Enabled      bool          `yaml:"enabled" json:"enabled" doc:"Propose newer images at all. What the code runs is kept in the registry either way."`
	Ignore       []string      `yaml:"ignore" json:"ignore" doc:"Paths that are not read, as globs: * is any run of characters without /, ** any run, ? one. A folder stands for everything in it. One or a list."`
	Environments []Environment `yaml:"environments" json:"environments" doc:"Sets of Terraform variables. Each is evaluated on its own, beside the default one."`
	Sinks        []Sink        `yaml:"sinks" json:"sinks" doc:"Attributes of Terraform resources that hold images, besides those that are known."`
	Rules        []Rule        `yaml:"rules" json:"rules" doc:"How images are chosen. The first rule that matches an image decides, alone; keys that it does not have take their defaults, and so does an image that no rule matches."`
	Groups       []Group       `yaml:"groups" json:"groups" doc:"Images that are proposed together. The first group that matches takes an image; one that no group takes has a pull request for itself and its directory."`
	Schedule     Schedule      `yaml:"schedule" json:"schedule" doc:"When pull requests are opened. Those that are open are kept up to date, and closed, at any time."`
	Limits       Limits        `yaml:"limits" json:"limits" doc:"How much is proposed."`
	Labels       []string      `yaml:"labels" json:"labels" doc:"Labels of every pull request. One or a list."`
	Reviewers    []string      `yaml:"reviewers" json:"reviewers" doc:"Accounts that are asked to review every pull request. One or a list."`
	BranchPrefix string        `yaml:"branch_prefix" json:"branch_prefix" doc:"What names of branches begin with. Branches with another prefix are never touched."`
	Message      string        `yaml:"message" json:"message" doc:"Subject of commits and title of pull requests of one image: {image}, {from} and {to} are filled in."`

	week week
}

// Environment is a set of var-files.
type Environment struct {
	Name  string   `yaml:"name" json:"name" required:"yes" doc:"What to call it."`
	Files []string `yaml:"files" json:"files" required:"yes" doc:"Its var-files, as paths from the root of the repository; later ones win. One or a list."`
}

// Sink is a place of images in a Terraform resource.
type Sink struct {
	Type string `yaml:"type" json:"type" required:"yes" doc:"Type of the resource, such as acme_service."`
	Path string `yaml:"path" json:"path" required:"yes" doc:"Its attribute, such as spec.container.image. Lists and repeated blocks are passed through."`
}

// Rule says how some images are chosen.
type Rule struct {
	Images      []string        `yaml:"images" json:"images" doc:"The images it is about, as globs of their repositories, with or without the host: docker.io/library/*, nginx. All when not set. One or a list."`
	Directories []string        `yaml:"directories" json:"directories" doc:"The directories it is about, with everything below them, as globs. All when not set. One or a list."`
	Enabled     bool            `yaml:"enabled" json:"enabled" doc:"Propose newer ones of these images."`
	Versioning  string          `yaml:"versioning" json:"versioning" doc:"How tags are read: auto (by what the tag looks like), semver, docker (any number of parts, the suffix stays), calver (dates; no major versions), pushed (by the time of their push), digest (the tag stays), or regex: and an expression with the groups major, minor, patch, build, revision, prerelease, compatibility."`
	Range       string          `yaml:"range" json:"range" doc:"Versions that may be chosen: ~1.2, ^1.2, 1.x, >=1.2 <2, 1.2 - 1.5, ~> 1.2 as in Terraform; || between alternatives."`
	Tags        []string        `yaml:"tags" json:"tags" glob:"tag" doc:"Tags that come into question, as globs; all when not set. One or a list."`
	Ignore      []string        `yaml:"ignore" json:"ignore" glob:"tag" doc:"Tags that are never chosen, as globs. One or a list."`
	Major       string          `yaml:"major" json:"major" enum:"off,separate,together" doc:"New major versions: none, in a pull request of their own, or like all others."`
	Prerelease  bool            `yaml:"prerelease" json:"prerelease" doc:"Choose prereleases also where the code has none."`
	Pin         string          `yaml:"pin" json:"pin" enum:"keep,always,never" doc:"The digest beside the tag: where the code has one now, always, or never."`
	Cooldown    config.Duration `yaml:"cooldown" json:"cooldown" doc:"How long an image has to be known before it is chosen: since its push to our registry, since we first saw it in another."`
	Signed      bool            `yaml:"signed" json:"signed" doc:"Choose only images with a signature by a key that the server knows."`
	Platforms   []string        `yaml:"platforms" json:"platforms" doc:"Platforms that an image must have, such as linux/arm64; those of the current image when not set. Those of the nodes that run it are needed anyway. One or a list."`
	Automerge   bool            `yaml:"automerge" json:"automerge" doc:"Merge the pull request once its checks have passed, if all its images have this."`
	Labels      []string        `yaml:"labels" json:"labels" doc:"More labels for its pull requests. One or a list."`
	Reviewers   []string        `yaml:"reviewers" json:"reviewers" doc:"More accounts that are asked to review. One or a list."`
}

// Group is images that are proposed together.
type Group struct {
	Name        string   `yaml:"name" json:"name" required:"yes" doc:"What to call it. The branch follows from it."`
	Images      []string `yaml:"images" json:"images" doc:"Its images, as globs, as in a rule. All when not set. One or a list."`
	Directories []string `yaml:"directories" json:"directories" doc:"Its directories, as globs, as in a rule. All when not set. One or a list."`
}

// Schedule is the hours of a week.
type Schedule struct {
	Days     []string `yaml:"days" json:"days" doc:"Days, such as mon-fri or [sat, sun]; all when not set."`
	Hours    []string `yaml:"hours" json:"hours" doc:"Hours of these days, such as 06-18, or 22-06, which ends on the day after; all when not set. One or a list."`
	Timezone string   `yaml:"timezone" json:"timezone" doc:"Whose clock it is: a name such as Europe/Berlin."`
}

// Limits bound what is proposed at once.
type Limits struct {
	Open    int `yaml:"open" json:"open" doc:"Pull requests that are open at a time; 0 is no limit."`
	PerHour int `yaml:"per_hour" json:"per_hour" doc:"Pull requests that are opened in an hour; 0 is no limit."`
}

// Default is the rules of a repository without a file.
func Default() *Rules {
	return &Rules{
		Enabled:      true,
		Schedule:     Schedule{Timezone: "UTC"},
		Limits:       Limits{Open: 10, PerHour: 20},
		BranchPrefix: "cairn/",
		Message:      "Bump {image} from {from} to {to}",
		week:         always(),
	}
}

// defaultRule is what a rule starts from, and what an image has that no rule
// matches.
func defaultRule() Rule {
	return Rule{Enabled: true, Versioning: "auto", Major: "off", Pin: "keep"}
}

func form() config.Form[Rules] {
	return config.Form[Rules]{Title: Name, Default: Default, Entry: func(t reflect.Type) reflect.Value {
		if t == reflect.TypeFor[Rule]() {
			return reflect.ValueOf(defaultRule())
		}
		return reflect.Zero(t)
	}}
}

// Parse reads a file that errors call name. What is wrong comes as a
// [*config.Error], each problem with its line; the rules are then nil.
func Parse(name string, b []byte) (*Rules, error) {
	r := form().Read(name, b)
	check(r)
	if err := r.Err(); err != nil {
		return nil, err
	}
	return r.Value, nil
}

// Schema is the JSON Schema of the file, for editors.
func Schema() []byte { return form().Schema() }

// Keys is the reference of the file.
func Keys() []config.Key { return form().Keys() }

// Options are what readers of the code have to know.
func (r *Rules) Options() code.Options {
	o := code.Options{Environments: map[string][]string{}}
	for _, g := range r.Ignore {
		g = strings.TrimSuffix(g, "/")
		o.Ignore = append(o.Ignore, g)
		if !strings.HasSuffix(g, "**") {
			o.Ignore = append(o.Ignore, g+"/**") // if it is a folder
		}
	}
	for _, e := range r.Environments {
		o.Environments[e.Name] = e.Files
	}
	for _, s := range r.Sinks {
		o.Sinks = append(o.Sinks, code.Sink{Type: s.Type, Path: s.Path})
	}
	return o
}

// Subject is the first line of a commit that moves one image.
func (r *Rules) Subject(image, from, to string) string {
	return strings.NewReplacer("{image}", image, "{from}", from, "{to}", to).Replace(r.Message)
}

// where is the key of an entry of a list, counted from 0.
func where(list string, i int) string { return fmt.Sprintf("%s#%d", list, i+1) }
