package reap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
)

var now = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)

// The example of AWS's own description of the signature.
func TestSignatureVersion4(t *testing.T) {
	req, err := http.NewRequest(http.MethodGet, "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	k := awsKeys{id: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
	k.sign(req, nil, "us-east-1", "iam", now)
	want := "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
	if got := req.Header.Get("Authorization"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	k.session = "temporary"
	k.sign(req, nil, "us-east-1", "iam", now)
	if got := req.Header.Get("Authorization"); !strings.Contains(got, ";x-amz-security-token,") {
		t.Errorf("the session is not signed: %s", got)
	}
}

// An exchange is one recorded request and its answer.
type exchange struct {
	request string // method, path and query
	header  map[string]string
	body    string
	status  int
	answer  string
}

// recorded answers the exchanges in order, and fails the test at any other
// request.
func recorded(t *testing.T, list ...exchange) string {
	t.Helper()
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got := r.Method + " " + r.RequestURI
		if n == len(list) {
			t.Errorf("one request too many: %s", got)
			w.WriteHeader(http.StatusTeapot)
			return
		}
		e := list[n]
		n++
		if got != e.request || string(b) != e.body {
			t.Errorf("request %d:\n got %s %s\nwant %s %s", n, got, b, e.request, e.body)
		}
		for k, v := range e.header {
			if !strings.HasPrefix(r.Header.Get(k), v) {
				t.Errorf("request %d: %s is %q, want %q…", n, k, r.Header.Get(k), v)
			}
		}
		if e.status != 0 {
			w.WriteHeader(e.status)
		}
		fmt.Fprint(w, e.answer)
	}))
	t.Cleanup(func() {
		s.Close()
		if n != len(list) {
			t.Errorf("%d of %d requests came", n, len(list))
		}
	})
	return s.URL
}

const some = image.Digest("sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

func amazon(action, body string, status int, answer string) exchange {
	return exchange{request: "POST /", body: body, status: status, answer: answer, header: map[string]string{
		"X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921." + action, "Content-Type": "application/x-amz-json-1.1",
		"Authorization": "AWS4-HMAC-SHA256 Credential=AKID/20150830/eu-west-1/ecr/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="}}
}

func TestECR(t *testing.T) {
	ctx, c := context.Background(), clock.NewFake(now)
	id := `{"registryId":"123456789012","repositoryName":"app/web","imageIds":[{"imageDigest":"` + string(some) + `"}]}`
	url := recorded(t,
		amazon("GetAuthorizationToken", `{}`, 200, `{"authorizationData":[{"authorizationToken":"QVdTOnNlY3JldA==","expiresAt":1.4E9,"proxyEndpoint":"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com"}]}`),
		amazon("DescribeRepositories", `{"registryId":"123456789012","maxResults":1000}`, 200, `{"repositories":[{"repositoryName":"app/web","registryId":"123456789012"}],"nextToken":"more"}`),
		amazon("DescribeRepositories", `{"registryId":"123456789012","maxResults":1000,"nextToken":"more"}`, 200, `{"repositories":[{"repositoryName":"base"}]}`),
		amazon("BatchDeleteImage", id, 200, `{"failures":[],"imageIds":[{"imageDigest":"`+string(some)+`","imageTag":"v1"}]}`),
		amazon("BatchDeleteImage", id, 200, `{"failures":[{"failureCode":"ImageReferencedByManifestList","failureReason":"Requested image referenced by manifest list","imageId":{"imageDigest":"`+string(some)+`"}}],"imageIds":[]}`),
		amazon("BatchDeleteImage", id, 400, `{"__type":"AccessDeniedException","Message":"not authorized to perform: ecr:BatchDeleteImage"}`),
		amazon("DescribeRepositories", `{"registryId":"123456789012","maxResults":1000}`, 200, `<html>`),
	)
	env := map[string]string{"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL_ECR": url + "/"}
	d, a, err := pickDriver(ctx, "123456789012.dkr.ecr.eu-west-1.amazonaws.com", Account{}, func(k string) string { return env[k] }, c, "cairn")
	if err != nil || a.Username != "AWS" || a.Password != "secret" {
		t.Fatalf("%+v %v", a, err)
	}
	if names, err := d.repositories(ctx, nil); err != nil || fmt.Sprint(names) != "[app/web base]" {
		t.Errorf("%v %v", names, err)
	}
	for _, says := range []string{"", "ImageReferencedByManifestList", "AccessDeniedException"} {
		if err := d.delete(ctx, "app/web", some); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if _, err := d.repositories(ctx, nil); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("html: %v", err)
	}
	if _, _, err := pickDriver(ctx, "123456789012.dkr.ecr.eu-west-1.amazonaws.com", Account{}, func(string) string { return "" }, c, ""); !errors.Is(err, ErrRequest) {
		t.Errorf("without keys: %v", err)
	}
}

func TestArtifactRegistry(t *testing.T) {
	ctx, c := context.Background(), clock.NewFake(now)
	auth := map[string]string{"Authorization": "Bearer token"}
	const parent = "/v1/projects/p/locations/europe-west1/repositories/r"
	remove := "DELETE " + parent + "/packages/app%2Fweb/versions/" + string(some) + "?force=true"
	const op = "projects/p/locations/europe-west1/operations/1"
	url := recorded(t,
		exchange{request: "GET " + parent + "/packages?pageSize=1000", header: auth, answer: `{"packages":[{"name":"projects/p/locations/europe-west1/repositories/r/packages/app%2Fweb"}],"nextPageToken":"more"}`},
		exchange{request: "GET " + parent + "/packages?pageSize=1000&pageToken=more", header: auth, answer: `{"packages":[{"name":"projects/p/locations/europe-west1/repositories/r/packages/base"}]}`},
		exchange{request: remove, header: auth, answer: `{"name":"` + op + `","metadata":{"@type":"type.googleapis.com/google.devtools.artifactregistry.v1.OperationMetadata"}}`},
		exchange{request: "GET /v1/" + op, header: auth, answer: `{"name":"` + op + `","done":true,"response":{"@type":"type.googleapis.com/google.protobuf.Empty"}}`},
		exchange{request: remove, header: auth, answer: `{"name":"` + op + `","done":true,"error":{"code":9,"message":"it is in use"}}`},
		exchange{request: remove, header: auth, status: 403, answer: `{"error":{"code":403,"message":"Permission denied","status":"PERMISSION_DENIED"}}`},
		exchange{request: remove, header: auth, answer: `{"name":"projects/../../else"}`},
	)
	d, _, err := pickDriver(ctx, "europe-west1-docker.pkg.dev", Account{Username: "oauth2accesstoken", Password: "token"}, nil, c, "cairn")
	if err != nil {
		t.Fatal(err)
	}
	d.(*gar).endpoint = url
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				if c.Waiting() > 0 {
					c.Advance(time.Second)
				}
			}
		}
	}()
	if names, err := d.repositories(ctx, []string{"p/r/**"}); err != nil || fmt.Sprint(names) != "[p/r/app/web p/r/base]" {
		t.Errorf("%v %v", names, err)
	}
	for _, says := range []string{"", "it is in use", "Permission denied", "names an operation"} {
		if err := d.delete(ctx, "p/r/app/web", some); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	for _, globs := range [][]string{nil, {"**"}, {"p/*/x"}, {"p/r"}} {
		if _, err := d.repositories(ctx, globs); !errors.Is(err, ErrRequest) {
			t.Errorf("%v: %v", globs, err)
		}
	}
	if _, _, err := pickDriver(ctx, "europe-west1-docker.pkg.dev", Account{}, nil, c, ""); !errors.Is(err, ErrRequest) {
		t.Errorf("without a token: %v", err)
	}
}
