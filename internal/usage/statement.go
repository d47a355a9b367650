package usage

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cairn.dev/cairn/internal/image"
)

// Limits of what may be reported.
const (
	MaxUses      = 100_000   // uses in one part
	MaxParts     = 1000      // parts of a statement
	MaxStated    = 1_000_000 // uses in force for one reporter
	MaxSubject   = 512       // bytes of a subject, and of a statement's name
	MaxReporter  = 255       // bytes of a reporter's name
	MaxBody      = 64 << 20  // bytes of one part as JSON
	MinPeriod    = 5 * time.Second
	MaxPeriod    = time.Hour
	periods      = 3 // a reporter is silent after this many periods
	maxReporters = 100_000
	maxPlatforms = 100 // of one reporter
	maxPlatform  = 64  // bytes of an operating system or architecture
)

// A Statement is what somebody reports. Without a Period it is a set of dated
// uses. With one, the sender is a reporter: it promises to speak again within
// the period, and its silence is remembered. With Complete it states that
// these uses, and only these of the Sources it names, go on now.
type Statement struct {
	Reporter string
	Period   time.Duration // 0: dated uses
	Complete bool
	// Sources that a complete statement replaces. When empty: those of its
	// uses; without uses, container and workload.
	Sources []Source
	// Statement names it, so that it can come in Parts (Part counts from 1)
	// and be restated by SameAs.
	Statement   string
	Part, Parts int
	SameAs      string // restates the statement of this name, without uses
	// Platforms of the nodes of a reporter, for people; with any of its
	// statements. Without them it keeps those it had.
	Platforms []Platform
	Uses      []Use // At: zero for the time of arrival. Now is ignored
}

// A Platform is how many nodes of a reporter are of one kind.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Count        int    `json:"count"`
}

// A Receipt says what became of a statement.
type Receipt struct {
	Accepted int           // uses recorded
	Enrolled bool          // this statement enrolled the reporter
	Period   time.Duration // as clamped; 0 for dated uses
	Applied  bool          // all parts have come (or it had only one)
	Warnings []string      // what was changed on the way in; at most a few
}

// An Identity is who reports, as found out by whoever let the report in.
type Identity struct {
	Name  string   // of the account, without '/', or cluster/NAME; "" in open mode
	Scope []string // repository globs it may report for; none means "**"
}

// Errors of [Ledger.Report] and [Ledger.Forget] that callers tell apart, with
// [BadStatementError].
var (
	// ErrUnknownStatement: same_as, or a part, names a statement that is not
	// the one in force or in progress (409).
	ErrUnknownStatement = errors.New("statement is not known; send it in full")
	// ErrScope: a use names a repository outside the reporter's scope (403).
	ErrScope = errors.New("repository is outside the scope of this reporter")
	// ErrLedgerFull: recording this would take more memory than the ledger may
	// use (507). The reporter that gets it counts as silent.
	ErrLedgerFull = errors.New("the ledger is full; report workloads or hosts as subjects, not pods")
	// ErrUnknownReporter: no reporter of that name is enrolled (404).
	ErrUnknownReporter = errors.New("reporter is not known; cairn cluster ls lists them")
)

// A BadStatementError says what is wrong with a statement, and where (400).
type BadStatementError struct {
	Path string // such as uses[3].digest; "" for the whole
	Why  string
}

func (e *BadStatementError) Error() string {
	if e.Path == "" {
		return "invalid statement: " + e.Why
	}
	return e.Path + ": " + e.Why
}

func bad(path, format string, args ...any) error {
	return &BadStatementError{Path: path, Why: fmt.Sprintf(format, args...)}
}

// wire is the JSON form of a statement, for writing.
type wire struct {
	Reporter  string     `json:"reporter,omitempty"`
	Period    string     `json:"period,omitempty"`
	Complete  bool       `json:"complete,omitempty"`
	Sources   []Source   `json:"sources,omitempty"`
	Statement string     `json:"statement,omitempty"`
	Part      int        `json:"part,omitempty"`
	Parts     int        `json:"parts,omitempty"`
	SameAs    string     `json:"same_as,omitempty"`
	Platforms []Platform `json:"platforms,omitempty"`
	Uses      []wireUse  `json:"uses,omitempty"`
}

type wireUse struct {
	Digest     image.Digest `json:"digest"`
	Repository string       `json:"repository,omitempty"`
	Source     Source       `json:"source"`
	Subject    string       `json:"subject,omitempty"`
	At         time.Time    `json:"at,omitzero"`
	Nodes      int          `json:"nodes,omitempty"`
}

// MarshalJSON writes the form that [ReadStatement] reads.
func (s Statement) MarshalJSON() ([]byte, error) {
	w := wire{Reporter: s.Reporter, Complete: s.Complete, Sources: s.Sources, Statement: s.Statement, Part: s.Part, Parts: s.Parts, SameAs: s.SameAs, Platforms: s.Platforms}
	if s.Period != 0 {
		w.Period = short(s.Period)
	}
	for _, u := range s.Uses {
		w.Uses = append(w.Uses, wireUse{u.Digest, u.Repository, u.Source, u.Subject, u.At, u.Nodes})
	}
	return json.Marshal(w)
}

// UnmarshalJSON is [ReadStatement] for a body that is already in memory.
func (s *Statement) UnmarshalJSON(b []byte) (err error) {
	*s, err = ReadStatement(strings.NewReader(string(b)), MaxBody)
	return err
}

// short writes a duration as people write it in configuration: 60s, 5m, 1h30m.
func short(d time.Duration) string {
	if d < 2*time.Minute && d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// at formats a time for people.
func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// checkText holds names that come from outside to what can be shown on one
// line.
func checkText(path, s string, limit int) error {
	if len(s) > limit {
		return bad(path, "it has %d bytes, the limit is %d", len(s), limit)
	}
	if !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError) {
		return bad(path, "it is not valid UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return bad(path, "it contains the control character %U", r)
		}
	}
	return nil
}

// check finds what is wrong with a statement apart from its uses.
func (s *Statement) check() error {
	if err := checkText("reporter", s.Reporter, MaxReporter); err != nil {
		return err
	}
	if strings.Contains(s.Reporter, "/") {
		return bad("reporter", "%q contains '/', which separates account and reporter", s.Reporter)
	}
	if err := checkText("statement", s.Statement, MaxSubject); err != nil {
		return err
	}
	if err := checkText("same_as", s.SameAs, MaxSubject); err != nil {
		return err
	}
	if s.Period < 0 {
		return bad("period", "%s is negative", s.Period)
	}
	if len(s.Uses) > MaxUses {
		return bad("uses", "there are %d, the limit is %d; send the statement in parts (statement, part, parts)", len(s.Uses), MaxUses)
	}
	for i, src := range s.Sources {
		if err := checkSource(fmt.Sprintf("sources[%d]", i), src); err != nil {
			return err
		}
	}
	if len(s.Platforms) > maxPlatforms {
		return bad("platforms", "there are %d, the limit is %d", len(s.Platforms), maxPlatforms)
	}
	for i, p := range s.Platforms {
		if err := checkText(fmt.Sprintf("platforms[%d].os", i), p.OS, maxPlatform); err != nil {
			return err
		}
		if err := checkText(fmt.Sprintf("platforms[%d].architecture", i), p.Architecture, maxPlatform); err != nil {
			return err
		}
	}
	if s.SameAs != "" {
		switch {
		case len(s.Uses) > 0:
			return bad("same_as", "it restates a statement without its uses, but %d uses came with it", len(s.Uses))
		case s.Statement != "" && s.Statement != s.SameAs:
			return bad("same_as", "it names %q while statement names %q", s.SameAs, s.Statement)
		case s.Parts > 1:
			return bad("same_as", "it restates the whole statement; leave out part and parts")
		}
		return nil
	}
	if s.Complete && s.Period == 0 {
		return bad("period", "missing: a complete statement holds until the next one, so it must say when that comes, such as \"60s\"")
	}
	if s.Part != 0 || s.Parts != 0 {
		switch {
		case s.Parts < 1 || s.Parts > MaxParts:
			return bad("parts", "%d is not between 1 and %d", s.Parts, MaxParts)
		case s.Part < 1 || s.Part > s.Parts:
			return bad("part", "%d is not between 1 and parts (%d)", s.Part, s.Parts)
		case s.Parts > 1 && s.Statement == "":
			return bad("statement", "missing: parts are put together by it")
		case s.Parts > 1 && !s.Complete:
			return bad("complete", "only a complete statement comes in parts; send dated uses as posts of their own")
		}
	}
	return nil
}

func checkSource(path string, s Source) error {
	switch s {
	case Pull, Container, Workload, Code, Run:
		return nil
	case Pin:
		return bad(path, "pins are not reported; use: cairn image pin REF")
	case Push:
		return bad(path, "pushes are recorded by the registry itself; push the image, or use: cairn tag")
	}
	return bad(path, "missing or unknown; use container, workload, pull, code or run")
}
