package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/artifacts"
	"cairn.dev/cairn/internal/work/door"
	"cairn.dev/cairn/internal/work/logs"
	"cairn.dev/cairn/internal/work/request"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/workflow/argo"
	"cairn.dev/cairn/internal/workflow/front"
)

// works is what runs and what they leave: the work server, what tasks print,
// their files.
type works struct {
	server   *work.Server
	logs     *logs.Store
	files    *artifacts.Store
	requests *request.Client
	clusters []*cluster
	worker   *worker.Worker // of this machine; nil: others run what there is
	name     string         // that worker's
	restless bool           // another process began lately
}

// openWork opens the work server and brings its runs back. Nothing goes on
// before [Server.Run].
func (s *Server) openWork(ctx context.Context, openDB func(string, []string, db.Sync) (*db.DB, error)) error {
	c := s.cfg.Work
	w := &works{}
	s.work = w
	// Nothing but this machine can ask it for anything: then what is on this
	// machine is theirs already.
	private := c.PrivateAddresses || s.loopback()
	ac := artifacts.Config{AllowPrivate: private, FileRoots: c.Folders}
	for _, x := range c.Secrets {
		ac.Secrets = append(ac.Secrets, artifacts.Secret{Name: x.Name, User: x.Username, File: x.File, Env: x.Env, Hosts: x.Hosts})
	}
	var err error
	w.files, err = artifacts.New(ac, artifacts.Deps{Content: s.content, Clock: s.deps.Clock, Log: s.log, Exists: func(ctx context.Context, run string) (bool, error) {
		_, err := w.server.Get(ctx, run)
		if errors.Is(err, work.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}, Task: func(ctx context.Context, holder task.Ref) (*task.Task, error) { return w.server.Task(ctx, holder) }})
	if err != nil {
		return fmt.Errorf("open the files of runs: %w", err)
	}
	secret, err := access.SigningKey(s.dir.Path("work.secret"))
	if err != nil {
		return err
	}
	workDB, err := openDB("work.db", work.Schema, db.Full)
	if err != nil {
		return err
	}
	n := s.names()
	w.server, err = work.New(ctx, work.Config{Secret: secret, MaxActive: c.MaxTasks, MaxPerNamespace: c.MaxNamespace, MaxPerRun: c.MaxRun, Keep: c.Keep.Std(), Term: c.Lease.Std()},
		work.Deps{DB: workDB, Clock: s.deps.Clock, Log: s.log, Blobs: w.files, Sources: w.files,
			Compile: front.Again, CompileSchedule: front.ScheduleAgain, Names: n.Repositories, Digest: n.Digest,
			Ended: w.ended, Changed: w.changed, Forgotten: w.forgotten})
	if err != nil {
		return fmt.Errorf("open the work server: %w", err)
	}
	dir := s.dir.Path("logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	w.logs, err = logs.Open(ctx, logs.Config{Dir: dir, Limit: int64(c.LogLimit), Keep: c.LogKeep.Std()}, logs.Deps{Blobs: w.files.Logs(), Clock: s.deps.Clock, Log: s.log,
		Live: w.server.Live, Known: w.known, Release: w.files.Logs().Release})
	if err != nil {
		return fmt.Errorf("open the logs of runs: %w", err)
	}
	s.closers = append(s.closers, w.logs.Close)
	w.requests = request.New(request.Config{Open: private}, argo.Success)
	return s.openClusters()
}

// loopback reports whether only this machine can reach the server.
func (s *Server) loopback() bool { return access.CheckOpen(s.listener.Addr().String()) == nil }

// forgotten lets go of what was kept of a run.
func (w *works) forgotten(run string) {
	w.logs.Forget(run)
	w.files.Forget(run)
}

// known reports whether a run is still there, ended or not.
func (w *works) known(ctx context.Context, run string) (bool, error) {
	_, err := w.server.Get(ctx, run)
	if errors.Is(err, work.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// parts are the loops of work.
func (w *works) parts(part func(name string, run func(context.Context) error)) {
	part("work", w.server.Run)
	part("upkeep of work", func(ctx context.Context) error { w.server.Upkeep(ctx); return nil })
	part("logs", w.logs.Run)
	part("files of runs", w.files.Run)
	w.clusterParts(part)
	if w.worker != nil {
		part("worker", func(ctx context.Context) error {
			// What an earlier process began on this machine ended with it. Where one
			// follows the other that may be why, and is not hurried.
			if !w.restless {
				if err := w.server.Gone(ctx, w.name); err != nil {
					return err
				}
			}
			return w.worker.Run(ctx)
		})
	}
}

// doors are where workers come in, whom the guard lets.
func (w *works) doors(mux *http.ServeMux, guard func(*http.Request) (int, error)) {
	ask := door.New(w.server, guard)
	mux.Handle("POST "+task.PathWork, ask)
	mux.Handle("POST "+task.PathBeat, ask)
	mux.Handle("POST "+task.PathLogs, w.logs.Handler(w.server.Holds, guard))
	files := w.files.Handler(w.server.Holds, guard)
	mux.Handle(task.PathBlob, files)
	mux.Handle(task.PathArtifact, files)
	mux.Handle(task.PathRequest, w.requests.Handler(w.server.Task, guard))
}

// fill gives the API what there is of work.
func (w *works) fill(d *api.Deps) {
	d.Work, d.Logs, d.Artifacts = w.server, w.logs, w.files
}

// slots are how many tasks run on this machine at a time.
func slots(configured int) int {
	if configured > 0 {
		return configured
	}
	return 2 * runtime.NumCPU()
}
