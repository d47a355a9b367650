// Package wire is the shape of the JSON API under /api/v1: what goes over the
// wire in both directions.
//
// It owns the names and types of every field. It promises scripts that a field
// may be added but none changes its meaning or goes. It is shared by the api
// room, which answers with these types, and by the client, and holds no
// behaviour beyond reading and writing itself.
package wire

import (
	"time"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/reap"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

// A Problem is the body of every error answer (RFC 9457). Detail says what was
// tried and what went wrong, Hint what to do about it.
type Problem struct {
	Type   string   `json:"type,omitempty"`
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail,omitempty"`
	Hint   string   `json:"hint,omitempty"`
	Errors []Detail `json:"errors,omitempty"` // which fields of the request were wrong
}

// A Detail is one wrong field of a request.
type Detail struct {
	Message  string `json:"message,omitempty"`
	Location string `json:"location,omitempty"`
}

func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	for _, d := range p.Errors {
		s += "; " + d.Message
		if d.Location != "" {
			s += " (" + d.Location + ")"
		}
	}
	return s
}

// GetStatus and ContentType let the API layer send a Problem as it is.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// A Duration reads and writes as people do: 30d, 12h, 6s.
type Duration = config.Duration

// Image is one image of one repository, in any state.
type Image struct {
	Repository   string         `json:"repository"`
	Digest       image.Digest   `json:"digest"`
	Tags         []content.Tag  `json:"tags"`
	MediaType    string         `json:"media_type"`
	ArtifactType string         `json:"artifact_type,omitempty"`
	Size         int64          `json:"size"` // bytes, the manifest and the blobs it names
	Pushed       time.Time      `json:"pushed"`
	State        string         `json:"state" enum:"live,expired,deleted"`
	HiddenAt     time.Time      `json:"hidden_at,omitzero"` // when it expired or was deleted
	Reason       string         `json:"reason,omitempty"`   // why
	Children     []image.Digest `json:"children,omitempty"` // of an index
	Config       image.Digest   `json:"config,omitempty"`
	Subject      image.Digest   `json:"subject,omitempty"` // what a referrer refers to
	Pins         []content.Pin  `json:"pins,omitempty"`    // on inspect
}

// ImageList is one page of images. Next, when set, is the value of "after"
// that asks for the following page.
type ImageList struct {
	Images []Image `json:"images"`
	Next   string  `json:"next,omitempty"`
}

// Restored says what came back.
type Restored struct {
	Image Image    `json:"image"`
	Tags  []string `json:"tags"`            // that name it again
	Taken []string `json:"taken,omitempty"` // pushed since, left alone
}

// RefRequest names an image.
type RefRequest struct {
	Ref string `json:"ref" doc:"repository[:tag][@digest]" example:"app/web:1.4"`
}

// TagRequest gives an image one more tag, or moves the tag to it.
type TagRequest struct {
	Ref string `json:"ref" doc:"the image: repository:tag or repository@digest" example:"app/web@sha256:…"`
	Tag string `json:"tag" doc:"the new tag" example:"stable"`
}

// PinRequest keeps an image until it is unpinned or For has passed.
type PinRequest struct {
	Ref    string   `json:"ref" doc:"the image: repository:tag or repository@digest"`
	Reason string   `json:"reason,omitempty" maxLength:"1000"`
	For    Duration `json:"for,omitempty" doc:"how long, such as 90d; for ever when left out"`
}

// PinList is all pins, or those of one repository.
type PinList struct {
	Pins []content.Pin `json:"pins"`
}

// Receipt is the answer to a statement of uses.
type Receipt struct {
	Accepted int      `json:"accepted"`           // uses taken
	Applied  bool     `json:"applied"`            // false while parts of the statement are missing
	Enrolled bool     `json:"enrolled"`           // silence of this reporter now counts as doubt
	Period   Duration `json:"period,omitempty"`   // as clamped: restate at least this often
	Warnings []string `json:"warnings,omitempty"` // what was taken differently than sent
}

// ResolveRequest asks what references name here, as workloads write them: with
// or without a host, by tag or by nothing.
type ResolveRequest struct {
	References []string `json:"references" maxItems:"1000" example:"[\"busybox:1\"]"`
}

// Resolved says which images the references name. Those that name none are
// left out. A reference may name one image of each repository that a node may
// get it from.
type Resolved struct {
	Digests map[string][]image.Digest `json:"digests"`
}

// Reporter is somebody who states uses.
type Reporter struct {
	Name    string    `json:"name"`
	Scope   []string  `json:"scope"`  // repository globs it speaks for
	Period  Duration  `json:"period"` // it promised to restate this often
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Silent  bool      `json:"silent"`  // unheard for three periods
	Digests int       `json:"digests"` // in its statement in force
	// Platforms of its nodes.
	Platforms []usage.Platform `json:"platforms,omitempty"`
}

// ReporterUses is a reporter and what it states to be in use now. Uses are at
// most as many as were asked for; Reporter.Digests says how many there are.
type ReporterUses struct {
	Reporter Reporter    `json:"reporter"`
	Uses     []usage.Use `json:"uses"`
}

// ReporterList is all reporters.
type ReporterList struct {
	Reporters []Reporter `json:"reporters"`
}

// IntervalList is the time covered by doubt.
type IntervalList struct {
	Intervals []usage.Interval `json:"intervals"`
}

// RunRequest starts retention now.
type RunRequest struct {
	Yes bool `json:"yes,omitempty" doc:"expire even where this would leave nothing of a repository"`
}

// AuditList is one page of the audit log, newest first. Before asks for older
// entries.
type AuditList struct {
	Entries []content.AuditEntry `json:"entries"`
	Next    int64                `json:"next,omitempty"` // value of "before" for the following page
}

// NewToken asks for an account with a secret.
type NewToken struct {
	Name    string         `json:"name" doc:"who or what it is for: a-z, 0-9, '.', '_', '-'" example:"ci" maxLength:"64"`
	Kind    string         `json:"kind,omitempty" enum:"user,robot,admin" default:"robot"`
	Grants  []access.Grant `json:"grants,omitempty" doc:"what it may do where; an admin needs none"`
	Expires Duration       `json:"expires,omitempty" doc:"how long the secret works, such as 90d; for ever when left out"`
	NoUse   bool           `json:"no_use,omitempty" doc:"its pulls are not a use (scanners, mirrors)"`
}

// CreatedToken is the only time a secret is shown.
type CreatedToken struct {
	access.Account
	Secret string `json:"secret"`
}

// TokenList is all accounts, those that ended lately among them.
type TokenList struct {
	Now    time.Time        `json:"now"` // the server's clock
	Tokens []access.Account `json:"tokens"`
}

// Version says what runs.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
}

// MirrorPull asks for an image of a mirrored registry.
type MirrorPull struct {
	Ref       string   `json:"ref" doc:"With its host, such as docker.io/library/busybox:1.37." minLength:"1"`
	Platforms []string `json:"platforms,omitempty" doc:"Of an index, only these, such as linux/amd64. All by default."`
}

// MirrorPulled is what came, or was here already.
type MirrorPulled struct {
	Repository string       `json:"repository"`
	Tag        string       `json:"tag,omitempty"`
	Digest     image.Digest `json:"digest"`
	Images     int          `json:"images" doc:"How many images of an index are here now; else 1."`
	Bytes      int64        `json:"bytes" doc:"In their blobs."`
	Warning    string       `json:"warning,omitempty" doc:"Why the upstream was of no help and this is what was here."`
}

// ReapAccount is how to reach a registry that is not Cairn's, and to sign on.
type ReapAccount struct {
	Registry string `json:"registry" doc:"URL of the registry." minLength:"1"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// ReapRequest asks what retention would do at another registry, or to do it.
type ReapRequest struct {
	ReapAccount
	Repositories []string `json:"repositories,omitempty" doc:"Names there, or globs of them; all when empty." maxItems:"1000"`
	DryRun       bool     `json:"dry_run,omitempty" doc:"Delete nothing, whatever yes says."`
	Yes          bool     `json:"yes,omitempty" doc:"Delete. Without it, the plan is only told."`
	PerHour      int      `json:"per_hour,omitempty" minimum:"0" doc:"So many deletions in any hour at most; 100 by default."`
	All          bool     `json:"all,omitempty" doc:"Also tell what stays."`
}

// ReapDecision is what retention makes of one image at another registry.
type ReapDecision struct {
	Decision
	FirstSeen time.Time `json:"first_seen"`
}

// ReapSkipped is a repository, or an image in it, that stays as it is.
type ReapSkipped = reap.Skipped

// ReapRecord is what it takes to push a deleted image again.
type ReapRecord = reap.Record

// ReapSummary says what a run found and did.
type ReapSummary = reap.Summary

// ReapUndo asks to push a deleted image again.
type ReapUndo struct {
	ReapAccount
	Record ReapRecord `json:"record"`
}

// ReapUndone says what came of it.
type ReapUndone = reap.Undone

// BumpRepository says how a repository of code is doing, and of each of its
// images why there is a pull request or none.
type BumpRepository = bump.RepositoryStatus

// BumpCheck asks for a look at a repository of code.
type BumpCheck struct {
	Repository string `json:"repository,omitempty" maxLength:"600" doc:"forge/owner/name, or owner/name where only one forge has it; all when left out."`
}

// Progress of long work, one JSON line at a time.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// A Decision is what retention makes of one image, and why.
type Decision struct {
	Repository string       `json:"repository"`
	Digest     image.Digest `json:"digest"`
	Tags       []string     `json:"tags"`
	Size       int64        `json:"size"`
	Action     string       `json:"action" enum:"keep,expire,revive,hidden,sweep"`
	Code       string       `json:"code"`   // why, for programs
	Reason     string       `json:"reason"` // why, for people
	LastUse    *usage.Use   `json:"last_use,omitempty"`
	Age        Duration     `json:"age"`                 // covered time since the last use, or since it was hidden
	ExpiresAt  time.Time    `json:"expires_at,omitzero"` // if nothing changes; left out when that cannot be foreseen
	Horizon    string       `json:"horizon" enum:"at,never,unknown"`
	By         image.Digest `json:"by,omitempty"` // the image that keeps this one, or takes it along
	Policy     string       `json:"policy,omitempty"`
}

// Status is how the server is doing, above all whether retention works and
// what holds it up.
type Status struct {
	Version   Version          `json:"version"`
	Now       time.Time        `json:"now"` // the server's clock
	Open      bool             `json:"open"`
	Retention retention.Status `json:"retention"`
	Content   content.Stats    `json:"content"`
	Reporters int              `json:"reporters"`
	Silent    []Reporter       `json:"silent"` // those who stop deletion
}

// Summary and RunReport are what a plan says and what a run did.
type (
	Summary   = retention.Summary
	RunReport = retention.Report
)

// ScrubReport is what reading everything has found.
type ScrubReport = content.ScrubReport

// Explanation is all that decides about one image.
type Explanation = retention.Explanation
