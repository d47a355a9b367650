package reap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// A driver does what the distribution protocol does not do at a registry:
// everything else is asked by that.
type driver interface {
	// repositories lists at least those that globs match; all when empty.
	repositories(ctx context.Context, globs []string) ([]string, error)
	// delete removes a manifest and all its tags.
	delete(ctx context.Context, repo string, d image.Digest) error
}

// Hosts of registries that have their own ways.
var (
	ecrHost = regexp.MustCompile(`^([0-9]{12})\.dkr\.ecr(-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(?:\.cn)?)$`)
	garHost = regexp.MustCompile(`^([a-z0-9-]+)-docker\.pkg\.dev$`)
)

// oci is the driver of registries that follow the protocol.
type oci struct{ *place }

func (o oci) repositories(ctx context.Context, _ []string) ([]string, error) {
	return o.catalog(ctx)
}

func (o oci) delete(ctx context.Context, repo string, d image.Digest) error {
	return o.deleteManifest(ctx, repo, d)
}

// pickDriver finds the driver of a host, and the account that its protocol
// takes where the driver knows a better one.
func pickDriver(ctx context.Context, host string, a Account, getenv func(string) string, c clock.Clock, agent string) (driver, Account, error) {
	rest := restClient{http: &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, agent: agent}
	if m := ecrHost.FindStringSubmatch(host); m != nil {
		e := &ecr{rest: rest, clock: c, account: m[1], region: m[3], endpoint: getenv("AWS_ENDPOINT_URL_ECR"),
			keys: awsKeys{getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"), getenv("AWS_SESSION_TOKEN")}}
		if e.endpoint == "" {
			e.endpoint = "https://api.ecr" + m[2] + "." + m[3] + "." + m[4] + "/"
		}
		if e.keys.id == "" || e.keys.secret == "" {
			return nil, a, badRequest("%s is ECR: give the server AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in its environment", host)
		}
		if a.Username == "" {
			var err error
			if a.Username, a.Password, err = e.login(ctx); err != nil {
				return nil, a, fmt.Errorf("sign on to %s: %w", host, err)
			}
		}
		return e, a, nil
	}
	if m := garHost.FindStringSubmatch(host); m != nil {
		if a.Password == "" {
			return nil, a, badRequest("%s is Artifact Registry: sign on as oauth2accesstoken, with an access token as the password", host)
		}
		return &gar{rest: rest, clock: c, location: m[1], endpoint: "https://artifactregistry.googleapis.com", token: a.Password}, a, nil
	}
	return nil, a, nil
}

// A restClient asks the API of a cloud.
type restClient struct {
	http  *http.Client
	agent string
}

// do sends a request and reads the answer into out. The error is an
// [*upstream.Error], with what the API says.
func (r restClient) do(req *http.Request, out any) error {
	req.Header.Set("User-Agent", r.agent)
	host := req.URL.Host
	resp, err := r.http.Do(req)
	if err != nil {
		return upstream.Unreachablef(host, "does not answer: %v", err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(resp.Body, maxList)); err != nil {
		return upstream.Unreachablef(host, "broke off in the middle of an answer: %v", err)
	}
	if resp.StatusCode != http.StatusOK {
		e := upstream.Unreachablef(host, "answers %s: %.300s", resp.Status, strings.Join(strings.Fields(b.String()), " "))
		e.Status = resp.StatusCode
		return e
	}
	if err := json.Unmarshal(b.Bytes(), out); err != nil {
		return upstream.Unreachablef(host, "sent something that is no answer (%s)", upstream.Describe(resp))
	}
	return nil
}

// pauseFor waits between two looks at something that takes a while.
func pauseFor(ctx context.Context, c clock.Clock, try int) error {
	return clock.Sleep(ctx, c, time.Second<<min(try, 4))
}

var errTakesLong = errors.New("it takes too long; whether it is done will show")
