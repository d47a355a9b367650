package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve/servetest"
	"cairn.dev/cairn/internal/worker/keep"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

func TestMain(m *testing.M) {
	keep.Main()
	testscript.Main(m, map[string]func(){"cairn": main})
}

// TestScripts runs testdata/*.txtar. Beside `cairn`, a script has
//
//	server [open|closed] [AFTER]    start a server on a clock that stands, with a
//	                                policy; a second one takes over data and time
//	push REPOSITORY TAG TEXT        push an image; its digest becomes $DIGEST, shortened $SHORT
//	report JSON                     state uses
//	pass DURATION                   let time pass, loops included
//	jump [-]DURATION                set the clock without time passing
//	exits CODE cairn …              run and compare the exit code
//	waits REGEXP cairn …            run again and again until its output matches
//	ready URL                       wait until a server is
//	fill FILE                       replace $HOSTPORT and $WORK in a file
//	fromfile NAME FILE              set a variable to a file's text, or stdout's
//	find NAME                       set $RUN to the newest run whose name begins so
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			e.Setenv("ADDR", l.Addr().String()) // free now, and most likely in a moment
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("NO_COLOR", "1")
			e.Values["script"] = &script{TB: e.T().(testing.TB)}
			return l.Close()
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"server": cmdServer,
			"push": func(ts *testscript.TestScript, _ bool, args []string) {
				s, t := of(ts)
				d := string(s.Push(t, args[0], args[1], args[2]))
				ts.Setenv("DIGEST", d)
				ts.Setenv("SHORT", d[:len("sha256:")+12])
			},
			"report": func(ts *testscript.TestScript, _ bool, args []string) {
				s, t := of(ts)
				if r := s.Do(t, http.MethodPost, "/api/v1/uses", "application/json", []byte(args[0])); r.Status != http.StatusOK {
					ts.Fatalf("report: %d: %s", r.Status, r.Body)
				}
			},
			"pass": func(ts *testscript.TestScript, _ bool, args []string) {
				s, t := of(ts)
				d, err := config.ParseDuration(args[0])
				ts.Check(err)
				s.Pass(t, d.Std())
			},
			"jump": func(ts *testscript.TestScript, _ bool, args []string) {
				s, _ := of(ts)
				d, err := config.ParseDuration(strings.TrimPrefix(args[0], "-"))
				ts.Check(err)
				if strings.HasPrefix(args[0], "-") {
					d = -d
				}
				s.Clock.Jump(d.Std())
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					var x *exec.ExitError
					if !errors.As(err, &x) {
						ts.Fatalf("%v", err)
					}
					got = x.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			"waits": func(ts *testscript.TestScript, _ bool, args []string) {
				re := regexp.MustCompile(args[0])
				for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
					ts.Check(ts.Exec(args[1], args[2:]...))
					if re.MatchString(ts.ReadFile("stdout")) {
						return
					}
				}
				ts.Fatalf("no match for %q after 20 s", args[0])
			},
			"fill": func(ts *testscript.TestScript, _ bool, args []string) {
				name := ts.MkAbs(args[0])
				b, err := os.ReadFile(name)
				ts.Check(err)
				for _, v := range []string{"HOSTPORT", "WORK"} {
					b = bytes.ReplaceAll(b, []byte("$"+v), []byte(ts.Getenv(v)))
				}
				ts.Check(os.WriteFile(name, b, 0o666))
			},
			"fromfile": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
			},
			"find": func(ts *testscript.TestScript, _ bool, args []string) {
				var l wire.RunList
				ts.Check(ts.Exec("cairn", "runs", "ls", "-o", "json"))
				ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &l))
				for _, r := range l.Runs {
					if strings.HasPrefix(r.Name, args[0]) {
						ts.Setenv("RUN", r.ID)
						return
					}
				}
				ts.Fatalf("there is no run %s among %+v", args[0], l.Runs)
			},
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
					if r, err := http.Get(args[0] + "/readyz"); err == nil {
						r.Body.Close()
						if r.StatusCode == http.StatusOK {
							return
						}
					}
				}
				ts.Fatalf("%s is not ready after 20 s", args[0])
			},
		},
	})
}

// script is one script that runs.
type script struct {
	testing.TB
	server *servetest.Server
}

func of(ts *testscript.TestScript) (*servetest.Server, testing.TB) {
	s := ts.Value("script").(*script)
	if s.server == nil {
		ts.Fatalf("the script has not started a server")
	}
	return s.server, s
}

func cmdServer(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value("script").(*script)
	var now *clock.Fake
	old := s.server
	if old != nil {
		ts.Check(old.Stop())
		now = clock.NewFake(old.Clock.Now())
	}
	s.server = servetest.Start(s, now, func(c *config.Config) {
		c.Open = len(args) == 0 || args[0] != "closed"
		c.Work.Pool = "off" // scripts start workers themselves
		if c.Retention.Explicit = len(args) > 1; c.Retention.Explicit {
			ts.Check(c.Retention.Policies[0].After.UnmarshalText([]byte(args[1])))
		}
		if old != nil {
			c.Data = old.Config.Data
		}
		if len(args) > 2 { // a repository of code in the script's folder
			c.Bump.Aliases = []string{"registry.test"}
			c.Bump.Forges = []config.Forge{{Name: "here", Kind: "git", URL: "file://" + ts.Getenv("WORK"), Repositories: []string{args[2]}}}
		}
	})
	ts.Setenv("CAIRN_SERVER", s.server.URL)
	ts.Setenv("HOSTPORT", s.server.Addr().String())
	ts.Setenv("CAIRN_TOKEN", s.server.Secret)
}

// The demo tells its story to the end, and always the same way.
func TestDemo(t *testing.T) {
	var out, stderr bytes.Buffer
	began := time.Now()
	if code := run(t.Context(), []string{"demo", "--exit"}, strings.NewReader(""), &out, &stderr, func(string) string { return "" }); code != exitOK {
		t.Fatalf("exit code %d: %s\n%s", code, &stderr, &out)
	}
	t.Logf("the demo took %v", time.Since(began))
	got := regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(out.String(), "127.0.0.1:PORT")
	got = regexp.MustCompile(`cairn (devel|v?\d)[^,\s]*,`).ReplaceAllString(got, "cairn VERSION,")
	got = regexp.MustCompile(`(?m)^  … .*\n`).ReplaceAllString(got, "") // only where it is slow
	got = regexp.MustCompile(`\b0[0-9a-v]{23}\b`).ReplaceAllString(got, "RUN")
	golden := filepath.Join("testdata", "demo.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the story changed (go test ./cmd/cairn -update writes it anew):\n%s", got)
	}
	if n := strings.Count(got, "\n"); n > 90 {
		t.Errorf("the story has %d lines; a person reads 90 at most", n)
	}
}

// Every command that lists has --output, and everything has a short text.
func TestEveryCommandIsExplained(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }}
	for _, c := range a.root().Commands() {
		for _, c := range append(c.Commands(), c) {
			if c.Short == "" {
				t.Errorf("%s has no short text", c.CommandPath())
			}
			if c.Runnable() && (c.Name() == "ls" || c.Name() == "plan" || c.Name() == "status" || c.Name() == "why") && c.Flags().Lookup("output") == nil {
				t.Errorf("%s has no --output", c.CommandPath())
			}
		}
	}
}

func TestYAMLSaysTheSameAsJSON(t *testing.T) {
	v := map[string]any{"tag": "1.10", "yes": "true", "n": 3, "empty": []string{}, "text": "a: b\nc", "null": "null", "date": "2026-01-01T00:00:00Z"}
	var out bytes.Buffer
	if err := writeYAML(&out, v); err != nil {
		t.Fatal(err)
	}
	back := map[string]any{}
	if err := yaml.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatalf("%v in\n%s", err, &out)
	}
	a, _ := json.Marshal(v)
	b, _ := json.Marshal(back)
	if !bytes.Equal(a, b) {
		t.Errorf("YAML\n%s\nreads back as %s, want %s", &out, b, a)
	}
	if strings.Contains(out.String(), "{") {
		t.Errorf("this is JSON, not YAML:\n%s", &out)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 60: "1.0 EiB", 1<<63 - 1: "8.0 EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is printed as %q, want %q", n, got, want)
		}
	}
}
