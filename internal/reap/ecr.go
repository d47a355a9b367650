package reap

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// ecr is the driver of Amazon's registry, which neither lists repositories nor
// deletes by the distribution protocol. It speaks the JSON of its API
// (AmazonEC2ContainerRegistry_V20150921), signed.
type ecr struct {
	rest     restClient
	clock    clock.Clock
	endpoint string
	account  string
	region   string
	keys     awsKeys
}

func (e *ecr) call(ctx context.Context, action string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.endpoint, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921."+action)
	e.keys.sign(req, body, e.region, "ecr", e.clock.Now())
	return e.rest.do(req, out)
}

// login is the account for the distribution protocol; it holds for hours.
func (e *ecr) login(ctx context.Context) (username, password string, err error) {
	var out struct {
		AuthorizationData []struct {
			AuthorizationToken string `json:"authorizationToken"`
		} `json:"authorizationData"`
	}
	if err := e.call(ctx, "GetAuthorizationToken", struct{}{}, &out); err != nil {
		return "", "", err
	}
	if len(out.AuthorizationData) > 0 {
		b, err := base64.StdEncoding.DecodeString(out.AuthorizationData[0].AuthorizationToken)
		if u, p, ok := strings.Cut(string(b), ":"); err == nil && ok {
			return u, p, nil
		}
	}
	return "", "", upstream.Unreachablef("ECR", "gives no token to sign on with")
}

func (e *ecr) repositories(ctx context.Context, _ []string) ([]string, error) {
	type request struct {
		RegistryID string `json:"registryId"`
		MaxResults int    `json:"maxResults"`
		NextToken  string `json:"nextToken,omitempty"`
	}
	in := request{RegistryID: e.account, MaxResults: page}
	var names []string
	for range maxPages {
		var out struct {
			Repositories []struct {
				RepositoryName string `json:"repositoryName"`
			} `json:"repositories"`
			NextToken string `json:"nextToken"`
		}
		if err := e.call(ctx, "DescribeRepositories", in, &out); err != nil {
			return nil, err
		}
		for _, r := range out.Repositories {
			names = append(names, r.RepositoryName)
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			return names, nil
		}
	}
	return nil, upstream.Unreachablef("ECR", "has more than %d pages of repositories", maxPages)
}

func (e *ecr) delete(ctx context.Context, repo string, d image.Digest) error {
	type id struct {
		ImageDigest string `json:"imageDigest"`
	}
	in := struct {
		RegistryID     string `json:"registryId"`
		RepositoryName string `json:"repositoryName"`
		ImageIDs       []id   `json:"imageIds"`
	}{e.account, repo, []id{{string(d)}}}
	var out struct {
		Failures []struct {
			FailureCode   string `json:"failureCode"`
			FailureReason string `json:"failureReason"`
		} `json:"failures"`
	}
	if err := e.call(ctx, "BatchDeleteImage", in, &out); err != nil {
		return err
	}
	// It answers 200 to what it does not do.
	for _, f := range out.Failures {
		return upstream.Unreachablef("ECR", "does not delete it: %s (%s)", f.FailureReason, f.FailureCode)
	}
	return nil
}
