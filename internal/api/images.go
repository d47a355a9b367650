package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

func (a *API) imageRoutes() {
	huma.Register(a.huma, op("list-images", http.MethodGet, "/api/v1/images", "images", "List images by repository, newest first", 400), a.listImages)
	huma.Register(a.huma, op("inspect-image", http.MethodGet, "/api/v1/image", "images", "One image, in any state", 400, 404), a.inspectImage)
	huma.Register(a.huma, op("delete-image", http.MethodDelete, "/api/v1/image", "images", "Hide an image with all its tags; it can be restored until it is swept", 400, 404, 409), a.deleteImage)
	huma.Register(a.huma, op("restore-image", http.MethodPost, "/api/v1/image/restore", "images", "Bring an expired or deleted image back", 400, 404, 409), a.restoreImage)
	huma.Register(a.huma, op("set-tag", http.MethodPost, "/api/v1/tags", "images", "Give an image one more tag, or move the tag to it", 400, 404, 409), a.setTag)
	huma.Register(a.huma, op("delete-tag", http.MethodDelete, "/api/v1/tags", "images", "Remove a tag and leave the image", 400, 404), a.deleteTag)
	huma.Register(a.huma, op("list-pins", http.MethodGet, "/api/v1/pins", "images", "List pins"), a.listPins)
	huma.Register(a.huma, op("pin-image", http.MethodPost, "/api/v1/pins", "images", "Keep an image whoever uses it or not; an expired one comes back", 400, 404, 409), a.pinImage)
	huma.Register(a.huma, op("unpin-image", http.MethodDelete, "/api/v1/pins", "images", "End a pin", 400, 404), a.unpinImage)
}

type imagesInput struct {
	Repository string `query:"repository" doc:"only repositories that this name or glob matches" example:"app/**" maxLength:"255"`
	State      string `query:"state" enum:"live,expired,deleted,all" default:"live"`
	Parts      bool   `query:"parts" doc:"also images that belong to another one: children of an index, referrers"`
	After      string `query:"after" doc:"\"next\" of the page before" maxLength:"600"`
	Limit      int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
}

func (a *API) listImages(ctx context.Context, in *imagesInput) (*output[wire.ImageList], error) {
	if err := a.mayList(ctx); err != nil {
		return nil, err
	}
	after, err := parseCursor(in.After)
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	out := &output[wire.ImageList]{Body: wire.ImageList{Images: []wire.Image{}}}
	full := errors.New("page is full")
	take := func(repository string, images []content.Image) error {
		if in.Repository != "" && !image.Glob(in.Repository).Match(repository) || !c.Can(access.Pull, repository) {
			return nil
		}
		part := partsOf(images)
		slices.SortFunc(images, newestFirst)
		for _, i := range images {
			if !after.before(&i) || !in.Parts && part[i.Digest] || in.State != "all" && i.State.String() != in.State {
				continue
			}
			if len(out.Body.Images) == in.Limit {
				last := out.Body.Images[in.Limit-1]
				out.Body.Next = cursorOf(&last)
				return full
			}
			out.Body.Images = append(out.Body.Images, imageOf(i))
		}
		return nil
	}
	// The rest of the repository the last page ended in comes first.
	if after.repository != "" {
		images, err := a.Content.ImagesOf(ctx, after.repository)
		if err == nil {
			err = take(after.repository, images)
		}
		if errors.Is(err, full) {
			return out, nil
		}
		if err != nil {
			return nil, a.problem(err, "list images of %s", after.repository)
		}
	}
	// One name needs no walk over all repositories.
	if in.Repository != "" && image.CheckRepository(in.Repository) == nil {
		if after.repository != "" {
			return out, nil
		}
		images, err := a.Content.ImagesOf(ctx, in.Repository)
		if err == nil {
			err = take(in.Repository, images)
		}
		if err != nil && !errors.Is(err, full) {
			return nil, a.problem(err, "list images of %s", in.Repository)
		}
		return out, nil
	}
	if err := a.Content.Scan(ctx, after.repository, take); err != nil && !errors.Is(err, full) {
		return nil, a.problem(err, "list images")
	}
	return out, nil
}

// partsOf is which of the images belong to another one: children of a live
// index, and referrers of an image that is there.
func partsOf(images []content.Image) map[image.Digest]bool {
	part := map[image.Digest]bool{}
	there := map[image.Digest]bool{}
	for _, i := range images {
		there[i.Digest] = true
		for _, c := range i.Children {
			part[c] = true
		}
	}
	for _, i := range images {
		if i.Subject != "" && there[i.Subject] {
			part[i.Digest] = true
		}
		if len(i.Tags) > 0 && i.Subject == "" {
			delete(part, i.Digest) // somebody names it by itself
		}
	}
	return part
}

func newestFirst(a, b content.Image) int {
	return cmp.Or(b.Pushed.Compare(a.Pushed), cmp.Compare(a.Digest, b.Digest))
}

// cursor is a place in the list: after this image, which need not be there any
// more.
type cursor struct {
	repository string
	digest     image.Digest
	pushed     time.Time
}

func cursorOf(i *wire.Image) string {
	return fmt.Sprintf("%s@%s@%d", i.Repository, i.Digest, i.Pushed.UnixNano())
}

func parseCursor(s string) (c cursor, err error) {
	if s == "" {
		return c, nil
	}
	parts := strings.Split(s, "@")
	if len(parts) == 3 && image.CheckRepository(parts[0]) == nil {
		n, err1 := strconv.ParseInt(parts[2], 10, 64)
		d, err2 := image.ParseDigest(parts[1])
		if err1 == nil && err2 == nil {
			return cursor{parts[0], d, time.Unix(0, n).UTC()}, nil
		}
	}
	return c, refuse(http.StatusBadRequest, `take it from "next" of the page before`, `"after" is not a place in the list`)
}

// before reports whether the image comes after the cursor.
func (c cursor) before(i *content.Image) bool {
	return c.repository != i.Repository || newestFirst(content.Image{Pushed: c.pushed, Digest: c.digest}, *i) < 0
}

func imageOf(i content.Image) wire.Image {
	w := wire.Image{Repository: i.Repository, Digest: i.Digest, Tags: i.Tags, MediaType: i.MediaType, ArtifactType: i.ArtifactType,
		Size: i.Size, Pushed: i.Pushed, State: i.State.String(), HiddenAt: i.HiddenAt, Reason: i.Reason,
		Children: i.Children, Config: i.Config, Subject: i.Subject}
	if w.Tags == nil {
		w.Tags = []content.Tag{}
	}
	return w
}

// lookup finds the image of a reference and checks that the caller may.
func (a *API) lookup(ctx context.Context, action access.Action, s, tried string) (content.Image, error) {
	ref, err := a.ref(ctx, action, s, tried)
	if err != nil {
		return content.Image{}, err
	}
	return a.peek(ctx, ref, tried)
}

// ref reads a reference and checks that the caller may.
func (a *API) ref(ctx context.Context, action access.Action, s, tried string) (image.Reference, error) {
	ref, err := wire.ParseRef(s)
	if err != nil {
		return ref, a.problem(err, "%s", tried)
	}
	return ref, a.may(ctx, action, ref.Repository)
}

func (a *API) peek(ctx context.Context, ref image.Reference, tried string) (content.Image, error) {
	key := ref.Tag
	if ref.Digest != "" {
		key = string(ref.Digest)
	}
	if wire.IsShort(ref.Digest) {
		d, err := a.expand(ctx, ref)
		if err != nil {
			return content.Image{}, a.problem(err, "%s %s", tried, ref)
		}
		key = string(d)
	}
	i, err := a.Content.Peek(ctx, ref.Repository, key)
	if err != nil {
		return i, a.problem(err, "%s %s", tried, ref)
	}
	return i, nil
}

// expand finds the one image whose digest begins as the reference says.
func (a *API) expand(ctx context.Context, ref image.Reference) (image.Digest, error) {
	images, err := a.Content.ImagesOf(ctx, ref.Repository)
	if err != nil {
		return "", err
	}
	var found image.Digest
	for _, i := range images {
		if !strings.HasPrefix(string(i.Digest), string(ref.Digest)) {
			continue
		}
		if found != "" {
			return "", refuse(http.StatusConflict, "write more of the digest", "%s means several images: %s and %s", ref, found, i.Digest)
		}
		found = i.Digest
	}
	if found == "" {
		return "", content.ErrManifestUnknown
	}
	return found, nil
}

type refInput struct {
	Ref string `query:"ref" required:"true" doc:"repository[:tag][@digest]; a digest may be shortened to 6 or more hex digits" example:"app/web:1.4" maxLength:"600"`
}

func (a *API) inspectImage(ctx context.Context, in *refInput) (*output[wire.Image], error) {
	i, err := a.lookup(ctx, access.Pull, in.Ref, "inspect")
	if err != nil {
		return nil, err
	}
	return a.answerImage(ctx, i.Repository, i.Digest, "inspect")
}

// answerImage is the image as it is now, with its pins.
func (a *API) answerImage(ctx context.Context, repository string, d image.Digest, tried string) (*output[wire.Image], error) {
	i, err := a.Content.Peek(ctx, repository, string(d))
	if err != nil {
		return nil, a.problem(err, "%s %s@%s", tried, repository, d)
	}
	pins, err := a.Content.Pins(ctx, repository)
	if err != nil {
		return nil, a.problem(err, "%s %s@%s", tried, repository, d)
	}
	w := imageOf(i)
	for _, p := range pins {
		if p.Digest == d {
			w.Pins = append(w.Pins, p)
		}
	}
	return &output[wire.Image]{w}, nil
}

type deleteImageInput struct {
	Ref    string `query:"ref" required:"true" doc:"repository[:tag][@digest]" example:"app/web:1.4" maxLength:"600"`
	Reason string `query:"reason" doc:"for the audit log" maxLength:"1000"`
}

func (a *API) deleteImage(ctx context.Context, in *deleteImageInput) (*output[wire.Image], error) {
	i, err := a.lookup(ctx, access.Delete, in.Ref, "remove")
	if err != nil {
		return nil, err
	}
	if i.State == content.Deleted {
		return nil, refuse(http.StatusNotFound, "`cairn image restore` brings it back until it is swept", "remove %s: it was removed at %s", in.Ref, i.HiddenAt.Format(time.RFC3339))
	}
	reason := cmp.Or(in.Reason, "removed by "+actor(ctx))
	if err := a.Content.DeleteManifest(ctx, i.Repository, i.Digest, actor(ctx), reason); err != nil {
		return nil, a.problem(err, "remove %s", in.Ref)
	}
	return &output[wire.Image]{imageOf(i)}, nil
}

func (a *API) restoreImage(ctx context.Context, in *input[wire.RefRequest]) (*output[wire.Restored], error) {
	i, err := a.lookup(ctx, access.Delete, in.Body.Ref, "restore")
	if err != nil {
		return nil, err
	}
	if i.State == content.Live {
		return nil, refuse(http.StatusConflict, "nothing needs to be done", "restore %s: it is not hidden", in.Body.Ref)
	}
	r, err := a.Content.Restore(ctx, i.Repository, i.Digest, actor(ctx))
	if err != nil {
		return nil, a.problem(err, "restore %s", in.Body.Ref)
	}
	now, err := a.answerImage(ctx, i.Repository, i.Digest, "restore")
	if err != nil {
		return nil, err
	}
	return &output[wire.Restored]{wire.Restored{Image: now.Body, Tags: notNil(r.Tags), Taken: r.Taken}}, nil
}

func (a *API) setTag(ctx context.Context, in *input[wire.TagRequest]) (*output[wire.Image], error) {
	if err := image.CheckTag(in.Body.Tag); err != nil {
		return nil, a.problem(err, "tag %s", in.Body.Ref)
	}
	i, err := a.lookup(ctx, access.Push, in.Body.Ref, "tag")
	if err != nil {
		return nil, err
	}
	if i.State != content.Live {
		return nil, hidden("tag", in.Body.Ref, i)
	}
	if err := a.Content.SetTag(ctx, i.Repository, i.Digest, in.Body.Tag, actor(ctx)); err != nil {
		return nil, a.problem(err, "tag %s as %s", in.Body.Ref, in.Body.Tag)
	}
	return a.answerImage(ctx, i.Repository, i.Digest, "tag")
}

// hidden refuses something that needs a live image.
func hidden(tried, ref string, i content.Image) error {
	return refuse(http.StatusConflict, fmt.Sprintf("bring it back first: cairn image restore %s@%s", i.Repository, i.Digest),
		"%s %s: the image is %s since %s (%s)", tried, ref, i.State, i.HiddenAt.Format(time.RFC3339), i.Reason)
}

func (a *API) deleteTag(ctx context.Context, in *refInput) (*struct{}, error) {
	ref, err := a.ref(ctx, access.Delete, in.Ref, "remove the tag")
	if err != nil {
		return nil, err
	}
	if ref.Tag == "" || ref.Digest != "" {
		return nil, refuse(http.StatusBadRequest, "write repository:tag", "remove the tag %s: this names an image, not a tag", in.Ref)
	}
	if err := a.Content.DeleteTag(ctx, ref.Repository, ref.Tag, actor(ctx)); err != nil {
		return nil, a.problem(err, "remove the tag %s", ref)
	}
	return nil, nil
}

type pinsInput struct {
	Repository string `query:"repository" doc:"only those of this repository" maxLength:"255"`
}

func (a *API) listPins(ctx context.Context, in *pinsInput) (*output[wire.PinList], error) {
	if err := a.mayList(ctx); err != nil {
		return nil, err
	}
	pins, err := a.Content.Pins(ctx, in.Repository)
	if err != nil {
		return nil, a.problem(err, "list pins")
	}
	c := callerOf(ctx)
	pins = slices.DeleteFunc(pins, func(p content.Pin) bool { return !c.Can(access.Pull, p.Repository) })
	return &output[wire.PinList]{wire.PinList{Pins: notNil(pins)}}, nil
}

func (a *API) pinImage(ctx context.Context, in *input[wire.PinRequest]) (*output[wire.Image], error) {
	i, err := a.lookup(ctx, access.Admin, in.Body.Ref, "pin")
	if err != nil {
		return nil, err
	}
	if i.State == content.Deleted {
		return nil, hidden("pin", in.Body.Ref, i)
	}
	pin := content.Pin{Repository: i.Repository, Digest: i.Digest, Reason: in.Body.Reason, By: actor(ctx), Created: a.Clock.Now()}
	if in.Body.For > 0 {
		pin.Expires = pin.Created.Add(time.Duration(in.Body.For))
	}
	if err := a.Content.Pin(ctx, pin); err != nil {
		return nil, a.problem(err, "pin %s", in.Body.Ref)
	}
	return a.answerImage(ctx, i.Repository, i.Digest, "pin")
}

func (a *API) unpinImage(ctx context.Context, in *refInput) (*struct{}, error) {
	i, err := a.lookup(ctx, access.Admin, in.Ref, "unpin")
	if err != nil {
		return nil, err
	}
	now, err := a.answerImage(ctx, i.Repository, i.Digest, "unpin")
	if err != nil {
		return nil, err
	}
	if len(now.Body.Pins) == 0 {
		return nil, refuse(http.StatusNotFound, "`cairn why` says what keeps an image", "unpin %s: it is not pinned", in.Ref)
	}
	if err := a.Content.Unpin(ctx, i.Repository, i.Digest); err != nil {
		return nil, a.problem(err, "unpin %s", in.Ref)
	}
	return nil, nil
}

// notNil makes an empty list [] and not null in JSON.
func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
