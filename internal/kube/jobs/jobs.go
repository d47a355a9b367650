// Package jobs makes the pods in which a cluster runs tasks: one Indexed Job
// for each run and shape of container.
//
// It owns what such a Job looks like ([Build]), how many pods there are, and
// what becomes of Jobs and pods: it grows a Job by patching its size, lets it
// shrink by workers that leave (dispatch tells them), and deletes it when the
// run has ended. It promises that pods are made slowly: a bucket of tokens,
// caps for run, namespace and cluster, and patience where pods wait for nodes,
// where a quota is used up, and where the API server asks for it; that a pod
// which cannot start is said to the run in words, with what was tried; that
// what a pod held that ended goes to others; that after a start it finds its
// Jobs again by their labels; and that what others made, another server of the
// same name for its cluster among them, is let alone. It hands out no tasks (dispatch), decides
// nothing about runs (work), and keeps nothing itself.
package jobs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/kube/dispatch"
)

// Config of a [Controller]. Zero values take the defaults that are named.
type Config struct {
	// Cluster is the name people gave it: a label of everything that is made.
	Cluster string
	REST    *rest.Config
	// Server is where pods find the work server. CA, if it is not nil, are the
	// certificates (PEM) by which they know it, in place of those that images
	// bring; it is asked for each Job.
	Server string
	CA     func() (string, error)
	// Worker is the image of cairn-worker; PullSecrets are those it needs in
	// each namespace. ImageVolume has the cluster mount it instead of copying.
	Worker      string
	PullSecrets []string
	ImageVolume bool
	// FindImageVolume has it found out whether the cluster can.
	FindImageVolume bool
	// MaxPerRun (20), MaxPerNamespace (200) and MaxPods (1,000) bound the pods
	// that are there at a time.
	MaxPerRun, MaxPerNamespace, MaxPods int
	// Rate is how many pods are made a second (10), Burst how many at once (10).
	Rate, Burst int
	// MaxPending is how many pods of a namespace may wait for nodes before no
	// more are made there (50).
	MaxPending int
	// BadStart is how long a pod may fail to start for a reason of its own (an
	// image that is not there, a Secret) before its tasks end (1 min), NoStart
	// how long there may be no room for it (10 min).
	BadStart, NoStart time.Duration
	// Linger is how long Jobs that have ended stay (1 min).
	Linger time.Duration
	// Queue of Kueue that Jobs are given to, where it is installed; "" for none.
	Queue string
	// Namespace of the server, where it runs in the cluster: Jobs belong to it,
	// so that none is left when it is deleted. "" where it runs elsewhere.
	Namespace string
}

// Demander says what pods are wanted; [dispatch.Dispatcher] is one.
type Demander interface {
	Demand() []dispatch.Demand
	Changed() <-chan struct{}
	// Token and Key are what a pod shows: one is of its run, the other of its
	// namespace, and secret.
	Token(dispatch.Demand) string
	Key(namespace string) string
	// Over says whether a run is known to have ended.
	Over(run string) bool
}

// Teller hears what became of pods; [dispatch.Dispatcher] is one.
type Teller interface {
	Gone(run, class, pod, why string)
	Fail(run, class, why string, infrastructure bool)
}

// Images finds out about images.
type Images interface {
	// Find says what there is to know of a reference, as pods of the namespace
	// would see it that have these pull secrets. An error that is [ErrImage]
	// does not pass.
	Find(ctx context.Context, namespace, reference string, secrets []string) (Image, error)
}

// ErrImage means that an image is not to be had, now or later.
var ErrImage = errors.New("image")

// Deps of a [Controller].
type Deps struct {
	Demander Demander
	Teller   Teller
	Images   Images // nil: entrypoints cannot be looked up
	// Live says whether a run has not ended, as its database knows.
	Live func(ctx context.Context, run string) (bool, error)
	// Failed says whether a run that is still known has ended otherwise than
	// well; nil: none has.
	Failed func(ctx context.Context, run string) (bool, error)
	// Waits is told of a run of which [Controller.Waits] says something new; may
	// be nil.
	Waits func(run string)
	// Ease is the part of [Config.Rate] at which pods are made now, above 0 to 1:
	// less while the API server is slow. It may be nil: always all.
	Ease  func() float64
	Clock clock.Clock
	Log   *slog.Logger
}

// Controller looks after the Jobs of one cluster. Run has to be called once.
type Controller struct {
	cfg  Config
	d    Deps
	log  *slog.Logger
	id   string // see [LabelServer]
	api  api
	real *cluster

	wake chan struct{} // holds one

	mu       sync.Mutex
	seen     int // of the two lists, how many were read
	jobs     map[key]*job
	older    map[string]*job         // by uid: those that go on beside a newer one of their key
	pods     map[string]*pod         // by namespace/name
	kin      map[key]map[string]*pod // the same, by kind
	counted  *tally                  // nil: not since something changed
	waits    map[string]wait         // by run
	hindered map[key]hindrance
	finding  map[want]*finding
	looking  int // how many of those are going on
	spaces   map[string]space
	keys     map[string]time.Duration // of namespaces: until when they are believed to be there
	missing  map[string]time.Duration // of namespaces whose pods miss theirs: when it is made again
	full     map[string]full          // by namespace
	bucket   bucket
	hold     time.Duration // no request that makes anything before
	fails    int           // in a row, of the API server
	claimed  time.Duration // when the claims of runs were last looked at
	asked    time.Duration // when events were last asked for; 0: never
	volumes  answer        // whether images can be mounted
	queue    answer        // whether there is Kueue
}

// key is the pods of one run and shape.
type key struct{ run, class string }

// api is what is asked of the API server.
type api interface {
	claims
	features
	createKey(ctx context.Context, s *corev1.Secret) error
	createJob(ctx context.Context, j *batchv1.Job) (*batchv1.Job, error)
	getJob(ctx context.Context, namespace, name string) (*batchv1.Job, error)
	// resizeJob has a Job have n indexes; only as it is in this version, if one
	// is named.
	resizeJob(ctx context.Context, namespace, name, version string, n int32) (*batchv1.Job, error)
	// deleteJob removes this Job, and none that was made under its name since.
	deleteJob(ctx context.Context, namespace, name string, uid types.UID) error
	restricted(ctx context.Context, namespace string) (bool, error)
	// warning is the newest event of an object that is one, of a pod one that
	// [hinders]; the zero event when there is none.
	warning(ctx context.Context, namespace, kind, name string) (event, error)
}

// claims is the part of it that is about volumes.
type claims interface {
	createClaim(ctx context.Context, p *corev1.PersistentVolumeClaim) error
	listClaims(ctx context.Context) ([]corev1.PersistentVolumeClaim, error)
	deleteClaim(ctx context.Context, namespace, name string, uid types.UID) error
}

// New makes a controller. It contacts nobody.
func New(cfg Config, d Deps) (*Controller, error) {
	if cfg.Cluster == "" || cfg.Server == "" || cfg.Worker == "" || d.Demander == nil || d.Teller == nil || d.Live == nil || d.Clock == nil {
		return nil, errors.New("workers in Jobs need the name of their cluster, the address of the work server, and the image of the worker")
	}
	for v, to := range map[*int]int{&cfg.MaxPerRun: 20, &cfg.MaxPerNamespace: 200, &cfg.MaxPods: 1000, &cfg.Rate: 10, &cfg.Burst: 10, &cfg.MaxPending: 50} {
		if *v <= 0 {
			*v = to
		}
	}
	for v, to := range map[*time.Duration]time.Duration{&cfg.BadStart: time.Minute, &cfg.NoStart: 10 * time.Minute, &cfg.Linger: time.Minute} {
		if *v <= 0 {
			*v = to
		}
	}
	if d.Ease == nil {
		d.Ease = func() float64 { return 1 }
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg, d: d, log: d.Log.With("cluster", cfg.Cluster), id: idOf(d.Demander), wake: make(chan struct{}, 1), jobs: map[key]*job{}, older: map[string]*job{}, pods: map[string]*pod{}, kin: map[key]map[string]*pod{},
		waits: map[string]wait{}, hindered: map[key]hindrance{}, finding: map[want]*finding{}, spaces: map[string]space{}, keys: map[string]time.Duration{}, missing: map[string]time.Duration{}, full: map[string]full{}, bucket: bucket{rate: float64(cfg.Rate), size: float64(cfg.Burst), have: float64(cfg.Burst)}}
	if cfg.REST != nil {
		var err error
		if c.real, err = newCluster(cfg.REST, cfg.Cluster, c.id, cfg.Namespace); err != nil {
			return nil, err
		}
		c.api = c.real
	}
	return c, nil
}

// pace is how often is looked at what only time changes.
const pace = time.Second

// Run works until ctx ends. It begins when it has seen what is there.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	wg.Go(func() {
		c.real.watch(ctx, c.real.batch, "jobs", func() runtime.Object { return &batchv1.JobList{} }, &batchv1.Job{}, jobSink{c})
	})
	wg.Go(func() {
		c.real.watch(ctx, c.real.core, "pods", func() runtime.Object { return &corev1.PodList{} }, &corev1.Pod{}, podSink{c})
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-c.d.Demander.Changed():
		case <-c.d.Clock.After(pace):
		}
		c.step(ctx)
	}
}

func (c *Controller) stir() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// listed notes that one of the lists was read.
func (c *Controller) listed() {
	c.mu.Lock()
	c.seen++
	c.mu.Unlock()
	c.stir()
}

// bucket holds tokens for pods.
type bucket struct {
	rate, size, have float64
	at               time.Duration
}

// take is up to n tokens, of which this part has come since the last time.
func (b *bucket) take(n int, now time.Duration, part float64) int {
	b.have = min(b.size, b.have+part*b.rate*(now-b.at).Seconds())
	b.at = now
	n = max(0, min(n, int(b.have)))
	b.have -= float64(n)
	return n
}

// back returns tokens that were not used.
func (b *bucket) back(n int) { b.have += float64(n) }
