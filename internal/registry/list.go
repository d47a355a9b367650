package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// page reads n and last of a list call. n is at most limit, which is also what
// a call without n gets.
func page(c *call, limit int) (n int, last string, err error) {
	if c.r.URL.RawQuery == "" {
		return limit, "", nil
	}
	query := c.r.URL.Query()
	n = limit
	if s := query.Get("n"); s != "" {
		n, err = strconv.Atoi(s)
		if err != nil || n < 0 {
			return 0, "", failf(http.StatusBadRequest, codePageInvalid, "n=%.40s is not a number of entries: use 0 or more", s)
		}
	}
	return min(n, limit), query.Get("last"), nil
}

// linkNext sets the header that points at the rest of a list.
func linkNext(c *call, path string, n int, last, artifactType string) {
	q := "?n=" + strconv.Itoa(n) + "&last=" + url.QueryEscape(last)
	if artifactType != "" {
		q += "&artifactType=" + url.QueryEscape(artifactType)
	}
	c.w.Header()["Link"] = []string{"<" + path + q + `>; rel="next"`}
}

// writeNames answers {key: repository, list: names}. Names of repositories and
// tags hold nothing that JSON would escape, which makes this a copy.
func writeNames(c *call, repository, list string, names []string) {
	size := 64 + len(repository)
	for _, s := range names {
		size += len(s) + 3
	}
	b := make([]byte, 0, size)
	b = append(b, '{')
	if repository != "" {
		b = append(b, `"name":"`...)
		b = append(b, repository...)
		b = append(b, `",`...)
	}
	b = append(b, '"')
	b = append(b, list...)
	b = append(b, `":[`...)
	for i, s := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, s...)
		b = append(b, '"')
	}
	b = append(b, "]}\n"...)
	writeJSON(c, valJSON, b)
}

func writeJSON(c *call, contentType []string, body []byte) {
	head := c.w.Header()
	head["Content-Type"] = contentType
	head["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = c.w.Write(body) // the client may be gone: nobody to tell
}

func (h *handler) tags(c *call) error {
	n, last, err := page(c, maxPage)
	if err != nil {
		return err
	}
	names, more, err := h.content.Tags(c.r.Context(), c.repository, last, n)
	if err != nil {
		return err
	}
	if more && len(names) > 0 {
		linkNext(c, "/v2/"+c.repository+"/tags/list", n, names[len(names)-1], "")
	}
	writeNames(c, c.repository, "tags", names)
	return nil
}

// catalog lists the repositories that the caller may pull from.
func (h *handler) catalog(c *call) error {
	n, last, err := page(c, maxPage)
	if err != nil {
		return err
	}
	may := h.mayPull(c)
	names := []string{}
	more := n > 0
	for more && len(names) <= n {
		var some []string
		some, more, err = h.content.Repositories(c.r.Context(), last, maxPage)
		if err != nil {
			return err
		}
		for _, s := range some {
			last = s
			if may(s) {
				names = append(names, s)
			}
		}
		more = more && len(some) > 0
	}
	if len(names) > n {
		names = names[:n]
		if n > 0 {
			linkNext(c, "/v2/_catalog", n, names[n-1], "")
		}
	}
	writeNames(c, "", "repositories", names)
	return nil
}

// referrers lists what names an image as its subject. An image that nothing
// refers to, or that is not here, has an empty list.
func (h *handler) referrers(c *call) error {
	d, err := image.ParseDigest(c.arg)
	if err != nil {
		return err
	}
	n, last, err := page(c, maxReferrerPage)
	if err != nil {
		return err
	}
	artifactType := ""
	if c.r.URL.RawQuery != "" {
		artifactType = c.r.URL.Query().Get("artifactType")
	}
	var after image.Digest
	if last != "" {
		if after, err = image.ParseDigest(last); err != nil {
			return err
		}
	}
	find := h.content.Referrers
	if c.mirrored {
		find = func(_ context.Context, _ string, d image.Digest, artifactType string, after image.Digest, n int) ([]image.Descriptor, bool, error) {
			return h.mirroredReferrers(c, d, artifactType, after, n)
		}
	}
	ds, more, err := find(c.r.Context(), c.repository, d, artifactType, after, n)
	if err != nil && !errors.Is(err, content.ErrRepositoryUnknown) && !errors.Is(err, content.ErrManifestUnknown) {
		return err
	}
	body := []byte(`{"schemaVersion":2,"mediaType":"` + image.MediaTypeIndex + `","manifests":[`)
	for i, r := range ds {
		one, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if i > 0 && len(body)+len(one) > maxReferrers {
			ds, more = ds[:i], true
			break
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, one...)
	}
	body = append(body, "]}\n"...)
	if more && len(ds) > 0 {
		linkNext(c, "/v2/"+c.repository+"/referrers/"+c.arg, n, string(ds[len(ds)-1].Digest), artifactType)
	}
	if artifactType != "" {
		c.w.Header()["Oci-Filters-Applied"] = valFiltered
	}
	writeJSON(c, valIndex, body)
	return nil
}
