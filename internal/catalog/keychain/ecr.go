package keychain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/upstream"
)

// ecrHost is a private registry at Amazon, and what its name says.
var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)$`)

// registry is one of Amazon's.
type registry struct {
	region   string
	endpoint string // of the API
}

func parseECR(host string) (registry, bool) {
	m := ecrHost.FindStringSubmatch(host)
	if m == nil {
		return registry{}, false
	}
	domain := "amazonaws.com"
	if strings.HasSuffix(m[3], ".cn") {
		domain += ".cn"
	}
	service := "api.ecr"
	if m[1] != "" {
		service = "ecr-fips"
	}
	return registry{m[2], "https://" + service + "." + m[2] + "." + domain + "/"}, true
}

// maxAnswer bounds an answer of the API, in bytes.
const maxAnswer = 1 << 20

// ecr asks Amazon's API for the password of its registries. Who asks is found
// by the library in all the places where Amazon's tools look: the environment,
// files, the identity of a pod, a task or a machine.
type ecr struct {
	clock    clock.Clock
	endpoint string // instead of Amazon's own
}

// account calls GetAuthorizationToken (Amazon ECR API reference). The password
// holds for twelve hours.
func (e ecr) account(ctx context.Context, r registry) (upstream.Account, error) {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(r.region))
	if err != nil {
		return upstream.Account{}, fmt.Errorf("read Amazon's configuration: %w", err)
	}
	keys, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return upstream.Account{}, fmt.Errorf("this machine is nobody at Amazon: %w; give it a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", err)
	}
	if e.endpoint != "" {
		r.endpoint = e.endpoint
	}
	body := []byte("{}")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.endpoint, bytes.NewReader(body))
	if err != nil {
		return upstream.Account{}, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, keys, req, hex.EncodeToString(sum[:]), "ecr", r.region, e.clock.Now()); err != nil {
		return upstream.Account{}, fmt.Errorf("sign a request to ECR: %w", err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return upstream.Account{}, fmt.Errorf("ask ECR for a password: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return upstream.Account{}, fmt.Errorf("ask ECR for a password: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return upstream.Account{}, fmt.Errorf("ask ECR for a password: it answers %s: %.300s", resp.Status, strings.Join(strings.Fields(string(answer)), " "))
	}
	return password(answer)
}

// password reads the answer: user:password, in base64.
func password(answer []byte) (upstream.Account, error) {
	var out struct {
		Data []struct {
			Token []byte `json:"authorizationToken"` // base64
		} `json:"authorizationData"`
	}
	if err := json.Unmarshal(answer, &out); err != nil || len(out.Data) == 0 {
		return upstream.Account{}, errors.New("ask ECR for a password: its answer has none")
	}
	user, pass, ok := strings.Cut(string(out.Data[0].Token), ":")
	if !ok || user == "" || pass == "" {
		return upstream.Account{}, errors.New("ask ECR for a password: its answer has none")
	}
	return upstream.Account{Username: user, Password: pass}, nil
}
