package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// tokened is a registry with a token server in one place. It notes how tokens
// were asked for.
func tokened(t *testing.T) (addr string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			body, _ := io.ReadAll(r.Body)
			user, password, _ := r.BasicAuth()
			*asked = append(*asked, r.Method+" "+user+":"+password+" "+r.URL.RawQuery+" "+string(body))
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "t", "expires_in": 300})
			return
		}
		if r.Header.Get("Authorization") != "Bearer t" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s",scope="repository:a:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func ask(t *testing.T, c *Client, q Question) (int, *Error) {
	t.Helper()
	resp, err := c.Ask(t.Context(), q)
	if err != nil {
		return err.Status, err
	}
	Drain(resp.Body)
	return resp.StatusCode, nil
}

func TestAccounts(t *testing.T) {
	for name, tc := range map[string]struct {
		account Account
		want    string
	}{
		"nobody":         {Account{}, "GET : scope=repository%3Aa%3Apull&service=s "},
		"password":       {Account{"ann", "pw"}, "GET ann:pw account=ann&scope=repository%3Aa%3Apull&service=s "},
		"identity token": {Account{IdentityToken, "refresh"}, "POST :  client_id=cairn&grant_type=refresh_token&refresh_token=refresh&scope=repository%3Aa%3Apull&service=s"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, asked := tokened(t)
			c, err := New(Config{Host: "r.example", URL: addr, Clock: clock.NewFake(time.Unix(0, 0)), Timeout: time.Minute,
				Account: func(context.Context) (Account, error) { return tc.account, nil }})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the token is kept
				if s, err := ask(t, c, Question{Method: http.MethodGet, Repository: "a", What: "tags/list"}); s != 200 {
					t.Fatalf("%d %v", s, err)
				}
			}
			if len(*asked) != 1 || (*asked)[0] != tc.want {
				t.Errorf("asked for tokens:\n%q\nwant\n%q", *asked, tc.want)
			}
		})
	}
}

func TestAccountThatCannotBeLookedUp(t *testing.T) {
	addr, asked := tokened(t)
	c, err := New(Config{Host: "r.example", URL: addr, Clock: clock.NewFake(time.Unix(0, 0)), Timeout: time.Minute,
		Account: func(context.Context) (Account, error) { return Account{}, errors.New("the keychain is locked") }})
	if err != nil {
		t.Fatal(err)
	}
	_, e := ask(t, c, Question{Method: http.MethodGet, Repository: "a", What: "tags/list"})
	if e == nil || !strings.Contains(e.Error(), "the keychain is locked") || len(*asked) != 0 {
		t.Errorf("error %v, asked for tokens %q", e, *asked)
	}
	_, err = New(Config{Host: "r.example", Username: "ann", Password: "pw", Account: func(context.Context) (Account, error) { return Account{}, nil }})
	if err == nil {
		t.Error("two accounts at once were taken")
	}
}

func TestNotModified(t *testing.T) {
	addr, _ := tokened(t)
	c, err := New(Config{Host: "r.example", URL: addr, Clock: clock.NewFake(time.Unix(0, 0)), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]int{"": 200, `"0"`: 200, `"1"`: 304} {
		if s, err := ask(t, c, Question{Method: http.MethodGet, Repository: "a", What: "tags/list", IfNoneMatch: tag}); s != want {
			t.Errorf("with %s: %d %v, want %d", tag, s, err, want)
		}
	}
}
