package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// Labels of everything that is made here.
const (
	LabelCluster = "cairn.dev/pool"   // the name the server has for the cluster
	LabelServer  = "cairn.dev/server" // which server that is: others may have the same name for theirs
	LabelRun     = "cairn.dev/run"    // the run's ID
	LabelClass   = "cairn.dev/class"  // the class of its shape
	labelQueue   = "kueue.x-k8s.io/queue-name"
	labelKeep    = "cairn.dev/keep" // of a claim: "failed", if it stays when its run does not end well
)

// Main is the name of the container in which tasks run.
const Main = "main"

// Where the worker is in somebody else's container.
const (
	binDir     = "/.cairn/bin"
	scratchDir = "/.cairn/scratch"
	binary     = "cairn-worker"
)

// exitFirst and exitLast are what a worker exits with when the fault is not a
// task's: the Job has no use for another try.
const exitFirst, exitLast = 64, 69

// Image is what is known of a shape's image, where that has to be known.
type Image struct {
	Reference           string // pinned to a digest where one was found
	Entrypoint, Command []string
	User                string
}

// Plan is all that a Job is built from.
type Plan struct {
	Name, Cluster string
	ID            string // of the server, see [LabelServer]
	Demand        dispatch.Demand
	Image         Image
	// Members are what is known of the images of a containerSet's containers, by
	// their references, where that has to be known.
	Members    map[string]Image
	Size       int32
	Server, CA string // how pods find the work server, and by whose certificates they know it; "" for those of the image
	Token, Key string // what pods show it: Token and, after it, what is in the Secret Key
	// Worker is the image of cairn-worker. ImageVolume has the cluster mount it
	// (KEP-4639); else an init container copies the worker.
	Worker      string
	ImageVolume bool
	PullSecrets []string // for the worker's image
	// Restricted: the namespace enforces the restricted Pod Security profile.
	Restricted bool
	// Queue of Kueue; "" for none.
	Queue string
	// Linger is how many seconds an ended Job stays, for people to look at.
	Linger int32
}

// ErrPod means that what a task says about its pod cannot be carried out,
// whoever tries.
var ErrPod = errors.New("pod")

func podErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrPod, fmt.Errorf(format, args...))
}

// Build makes the Job of one run and shape.
func Build(p Plan) (*batchv1.Job, error) {
	spec, meta, err := podOf(&p)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{LabelCluster: p.Cluster, LabelServer: p.ID, LabelRun: p.Demand.Run, LabelClass: p.Demand.Class, "app.kubernetes.io/managed-by": "cairn"}
	if meta.Labels == nil {
		meta.Labels = map[string]string{}
	}
	maps.Copy(meta.Labels, labels)
	j := &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Demand.Namespace, Labels: maps.Clone(labels)},
		Spec: batchv1.JobSpec{
			CompletionMode: ptr(batchv1.IndexedCompletion),
			// Both grow together: KEP-3715 allows nothing else.
			Completions: ptr(p.Size), Parallelism: ptr(p.Size),
			BackoffLimitPerIndex: ptr(int32(3)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
				{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
				{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{ContainerName: ptr(Main), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: exits()}},
			}},
			// The only one that goes with a failure policy.
			PodReplacementPolicy:    ptr(batchv1.Failed),
			TTLSecondsAfterFinished: ptr(p.Linger),
			Template:                corev1.PodTemplateSpec{ObjectMeta: meta, Spec: *spec},
		},
	}
	if p.Queue != "" {
		j.Labels[labelQueue] = p.Queue
		j.Spec.Suspend = ptr(true) // Kueue ends that
	}
	return j, nil
}

func exits() (out []int32) {
	for i := int32(exitFirst); i <= exitLast; i++ {
		out = append(out, i)
	}
	return out
}

// podOf is the pod: what the task says of it, and the worker in it.
func podOf(p *Plan) (*corev1.PodSpec, metav1.ObjectMeta, error) {
	u, err := read(p.Demand.Shape.Pod)
	if err != nil {
		return nil, u.meta, err
	}
	s := u.spec
	s.RestartPolicy = corev1.RestartPolicyNever
	s.EnableServiceLinks = ptr(false) // a variable for each Service would be seen by tasks
	if s.AutomountServiceAccountToken == nil && s.ServiceAccountName == "" {
		s.AutomountServiceAccountToken = ptr(false)
	}
	for _, name := range p.PullSecrets {
		s.ImagePullSecrets = append(s.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	if s.SecurityContext == nil {
		s.SecurityContext = &corev1.PodSecurityContext{}
	}
	if p.Restricted {
		s.SecurityContext.RunAsNonRoot = ptr(true)
		if s.SecurityContext.SeccompProfile == nil {
			s.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
		}
	}
	for _, c := range u.sidecars {
		c.RestartPolicy = ptr(corev1.ContainerRestartPolicyAlways) // so that they end with the pod
		s.InitContainers = append(s.InitContainers, c)
	}
	if p.Demand.Shape.Requests {
		s = requester(p, s)
	} else {
		inject(p, &s)
		main, err := container(p, u.main, &s, u.templates)
		if err != nil {
			return nil, u.meta, err
		}
		s.Containers = []corev1.Container{main}
		for i := range s.InitContainers {
			if c := &s.InitContainers[i]; u.mirrors[c.Name] {
				mirror(c, main.VolumeMounts)
			}
		}
		join(p, &s, u.members)
		together(p, &s, u.claims)
	}
	if u.patch != "" {
		if s, err = patched(s, u.patch); err != nil {
			return nil, u.meta, err
		}
	}
	return &s, u.meta, nil
}

// mirror gives a container what main has mounted, but for what is the worker's.
func mirror(c *corev1.Container, mounts []corev1.VolumeMount) {
	for _, m := range mounts {
		taken := slices.ContainsFunc(c.VolumeMounts, func(o corev1.VolumeMount) bool { return path.Clean(o.MountPath) == path.Clean(m.MountPath) })
		if !taken && !strings.HasPrefix(m.Name, "cairn-") {
			c.VolumeMounts = append(c.VolumeMounts, m)
		}
	}
}

// inject brings the worker into the pod.
func inject(p *Plan, s *corev1.PodSpec) {
	s.Volumes = append(s.Volumes, corev1.Volume{Name: "cairn-scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	if p.ImageVolume {
		s.Volumes = append(s.Volumes, corev1.Volume{Name: "cairn-bin", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: p.Worker}}})
		return
	}
	s.Volumes = append(s.Volumes, corev1.Volume{Name: "cairn-bin", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
	copier := corev1.Container{
		Name: copierName, Image: p.Worker, Args: []string{"-install", path.Join(binDir, binary)},
		VolumeMounts: []corev1.VolumeMount{{Name: "cairn-bin", MountPath: binDir}},
		Resources:    corev1.ResourceRequirements{Requests: small, Limits: small},
		// Whatever profile a namespace enforces, this passes it.
		SecurityContext: &corev1.SecurityContext{RunAsUser: ptr(int64(65532)), RunAsGroup: ptr(int64(65532)), RunAsNonRoot: ptr(true), ReadOnlyRootFilesystem: ptr(true), AllowPrivilegeEscalation: ptr(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
	}
	s.InitContainers = append([]corev1.Container{copier}, s.InitContainers...)
}

// container is that of the tasks.
func container(p *Plan, c corev1.Container, s *corev1.PodSpec, templates []string) (corev1.Container, error) {
	x := &p.Demand.Shape
	c.Name, c.Image = Main, x.Image
	if p.Image.Reference != "" {
		c.Image = p.Image.Reference
	}
	c.Command = []string{path.Join(binDir, binary)}
	c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError // a worker that cannot work says why
	c.Args = []string{"-name=$(CAIRN_NAME)", "-pool=" + p.Demand.Class, "-scratch=" + scratchDir}
	c.Env = append(c.Env, environment(p)...)
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "cairn-bin", MountPath: binDir, ReadOnly: true}, corev1.VolumeMount{Name: "cairn-scratch", MountPath: scratchDir})
	if err := mounts(p, &c, s, templates); err != nil {
		return c, err
	}
	if x.Entrypoint {
		for _, w := range p.Image.Entrypoint {
			c.Args = append(c.Args, "-entrypoint="+escaped(w))
		}
		for _, w := range p.Image.Command {
			c.Args = append(c.Args, "-command="+escaped(w))
		}
	}
	if x.Daemon {
		c.Env = append(c.Env, corev1.EnvVar{Name: "CAIRN_ADDRESS", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}})
		c.Args = append(c.Args, "-address=$(CAIRN_ADDRESS)")
	}
	if x.Single() {
		c.Args = append(c.Args, "-single")
	}
	if x.Isolation == "readonly" || x.Isolation == "shared" {
		c.Args = append(c.Args, "-bare")
	}
	request(&c, corev1.ResourceCPU, *resource.NewMilliQuantity(x.CPU, resource.DecimalSI))
	request(&c, corev1.ResourceMemory, *resource.NewQuantity(x.Memory, resource.BinarySI))
	return c, secure(p, &c, s)
}

// environment tells a worker where its server is, what to show it, and its own
// name.
func environment(p *Plan) []corev1.EnvVar {
	env := []corev1.EnvVar{
		{Name: "CAIRN_SERVER", Value: p.Server},
		{Name: "CAIRN_KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: p.Key}, Key: keyField}}},
		{Name: "CAIRN_TOKEN", Value: p.Token + ".$(CAIRN_KEY)"}, // the kubelet puts them together
		{Name: "CAIRN_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
	}
	if p.CA != "" {
		env = append(env, corev1.EnvVar{Name: "CAIRN_CA", Value: escaped(p.CA)})
	}
	return env
}

// escaped keeps Kubernetes from expanding variables in a word.
func escaped(s string) string { return strings.ReplaceAll(s, "$(", "$$(") }

func request(c *corev1.Container, name corev1.ResourceName, q resource.Quantity) {
	if _, said := c.Resources.Requests[name]; said || q.IsZero() {
		return
	}
	if c.Resources.Requests == nil {
		c.Resources.Requests = corev1.ResourceList{}
	}
	if most, limited := c.Resources.Limits[name]; limited && most.Cmp(q) < 0 {
		return // Kubernetes takes the limit for the request
	}
	c.Resources.Requests[name] = q
}

// mounts brings the volumes of the shape into the container, and tells the
// worker which of them are new for each task and which are shared.
func mounts(p *Plan, c *corev1.Container, s *corev1.PodSpec, templates []string) error {
	mounted := map[string]bool{}
	for _, m := range c.VolumeMounts {
		mounted[path.Clean(m.MountPath)] = true
	}
	add := func(name, at string, ro bool) {
		if !mounted[path.Clean(at)] {
			mounted[path.Clean(at)] = true
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: at, ReadOnly: ro})
		}
	}
	known := func(name string) *corev1.Volume {
		if i := slices.IndexFunc(s.Volumes, func(v corev1.Volume) bool { return v.Name == name }); i >= 0 {
			return &s.Volumes[i]
		}
		return nil
	}
	for i, v := range p.Demand.Shape.Volumes {
		if v.Path == "" || !path.IsAbs(v.Path) || path.Clean(v.Path) == "/" {
			return podErrorf("volume %q: %q is no place to mount it: write a whole path below /", v.Name, v.Path)
		}
		name := v.Name
		if name == "" {
			name = "volume-" + strconv.Itoa(i)
		}
		if known(name) == nil {
			source := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
			switch {
			case slices.Contains(templates, name):
				source = claimOf(p.Demand.Run, name)
			case v.Claim != "":
				source = corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: v.Claim, ReadOnly: v.ReadOnly}}
			}
			s.Volumes = append(s.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		}
		add(name, v.Path, v.ReadOnly)
	}
	for _, m := range c.VolumeMounts {
		v := known(m.Name)
		if v == nil && slices.Contains(templates, m.Name) {
			s.Volumes = append(s.Volumes, corev1.Volume{Name: m.Name, VolumeSource: claimOf(p.Demand.Run, m.Name)})
			v = known(m.Name)
		}
		if v == nil || strings.HasPrefix(m.Name, "cairn-") {
			continue
		}
		switch kept, fresh := fateOf(v); {
		case fresh:
			c.Args = append(c.Args, "-fresh="+escaped(m.MountPath))
		case kept && !m.ReadOnly:
			c.Args = append(c.Args, "-keep="+escaped(m.MountPath))
		}
	}
	if readonly(p) {
		// A file that everybody may write, for the last words of a container.
		c.Args = append(c.Args, "-fresh="+corev1.TerminationMessagePathDefault)
		for i, dir := range dispatch.Fresh {
			if mounted[dir] {
				continue
			}
			name := "cairn-tmp-" + strconv.Itoa(i)
			s.Volumes = append(s.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
			add(name, dir, false)
			c.Args = append(c.Args, "-fresh="+dir)
		}
	}
	return nil
}

// fateOf says what tasks of one pod make of a volume: kept is one that they
// share on purpose, fresh one that is emptied between them. One that is
// neither (a Secret, a ConfigMap) cannot be written.
func fateOf(v *corev1.Volume) (kept, fresh bool) {
	switch {
	case v.EmptyDir != nil:
		return false, true
	case v.Secret != nil, v.ConfigMap != nil, v.Projected != nil, v.DownwardAPI != nil, v.Image != nil:
		return false, false
	}
	return true, false
}

// readonly says whether the container's root cannot be written: then tasks can
// be kept apart where the kernel allows no overlays. A pod for one task does
// not need it, and a task whose outputs lie elsewhere cannot have it.
func readonly(p *Plan) bool {
	x := &p.Demand.Shape
	switch x.Isolation {
	case "readonly":
		return true
	case "":
		return !x.Single() && !x.Outside
	}
	return false
}

// secure says as whom the container runs and what it may.
func secure(p *Plan, c *corev1.Container, s *corev1.PodSpec) error {
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	sc := c.SecurityContext
	if sc.ReadOnlyRootFilesystem == nil && readonly(p) {
		sc.ReadOnlyRootFilesystem = ptr(true)
	}
	if u := p.Demand.Shape.User; u != "" && sc.RunAsUser == nil {
		// A name is looked up by the worker, which needs to be root for that.
		uid, gid, _ := strings.Cut(u, ":")
		if n, err := strconv.ParseInt(uid, 10, 64); err == nil {
			sc.RunAsUser = ptr(n)
			if g, err := strconv.ParseInt(gid, 10, 64); err == nil && sc.RunAsGroup == nil {
				sc.RunAsGroup = ptr(g)
			}
		} else if p.Restricted {
			return podErrorf("user %q: its namespace %s lets nobody run as root, so that names cannot be looked up: write a number", u, p.Demand.Namespace)
		}
	}
	confine(p, c, s, p.Image.User)
	return nil
}

// root says whether an image's user is root, or a name that Kubernetes cannot
// tell from it.
func root(user string) bool {
	uid, _, _ := strings.Cut(user, ":")
	n, err := strconv.ParseInt(uid, 10, 64)
	return err != nil || n == 0
}

// patched is the pod as the task patches it.
func patched(s corev1.PodSpec, patch string) (corev1.PodSpec, error) {
	p, err := yamlToJSON(patch)
	if err != nil {
		return s, podErrorf("podSpecPatch: %w", err)
	}
	from, err := json.Marshal(s)
	if err != nil {
		return s, err
	}
	var base, change map[string]any
	if err := json.Unmarshal(from, &base); err != nil {
		return s, err
	}
	if err := json.Unmarshal(p, &change); err != nil {
		return s, podErrorf("podSpecPatch: it is no object: %w", err)
	}
	b, err := json.Marshal(merge(base, change))
	if err != nil {
		return s, err
	}
	var out corev1.PodSpec
	return out, strict("podSpecPatch", b, &out)
}

// strict reads JSON that may have no field that Kubernetes does not know.
func strict(what string, b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return podErrorf("%s: %w", what, err)
	}
	return nil
}

func ptr[T any](v T) *T { return &v }
