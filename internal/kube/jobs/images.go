package jobs

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// want is an image that has to be looked up.
type want struct{ namespace, reference, secrets string }

// finding is a look-up, or its answer.
type finding struct {
	img   Image
	err   error
	done  bool
	until time.Duration // when it is looked up again
}

// How long answers are believed: digests do not change, tags do.
const (
	believeFor = 5 * time.Minute
	doubtFor   = 15 * time.Second
	findWithin = 30 * time.Second
	maxLooking = 16 // look-ups at a time
)

// image is what is known of the image of a shape, or that it is being found
// out. Where every task names its command, and nobody has to know whether the
// image's user is root, nobody is asked.
func (c *Controller) image(ctx context.Context, x *dispatch.Demand) (img Image, ready bool, err error) {
	if !x.Shape.Entrypoint {
		return Image{}, true, nil
	}
	if c.d.Images == nil {
		return Image{}, false, errors.Join(ErrImage, errors.New("its task names no command, and images cannot be looked up here: write one"))
	}
	var secrets []string
	joined := ""
	u, err := read(x.Shape.Pod)
	if err != nil {
		return Image{}, false, errors.Join(ErrImage, err)
	}
	for _, s := range append([]corev1.LocalObjectReference{}, u.spec.ImagePullSecrets...) {
		secrets, joined = append(secrets, s.Name), joined+" "+s.Name
	}
	return c.find(ctx, want{x.Namespace, x.Shape.Image, joined}, secrets)
}

// members are what is known of the images of a containerSet's containers that
// name no command, or that it is being found out.
func (c *Controller) members(ctx context.Context, x *dispatch.Demand) (out map[string]Image, ready bool, err error) {
	if x.Shape.Pod["containerSet"] == nil {
		return nil, true, nil
	}
	u, err := read(x.Shape.Pod)
	if err != nil {
		return nil, false, errors.Join(ErrImage, err)
	}
	out = map[string]Image{}
	for _, m := range u.members {
		if len(m.Command) > 0 {
			continue
		}
		y := *x
		y.Shape.Image, y.Shape.Entrypoint = m.Image, true
		if out[m.Image], ready, err = c.image(ctx, &y); err != nil || !ready {
			return nil, false, err
		}
	}
	return out, true, nil
}

// find looks an image up, or says what was found.
func (c *Controller) find(ctx context.Context, w want, secrets []string) (img Image, ready bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.d.Clock.Mono()
	f := c.finding[w]
	if f != nil && (!f.done || now < f.until) {
		return f.img, f.done, f.err
	}
	if c.looking >= maxLooking {
		return Image{}, false, nil
	}
	c.looking++
	for k, old := range c.finding {
		if old.done && now >= old.until {
			delete(c.finding, k)
		}
	}
	f = &finding{}
	c.finding[w] = f
	go func() {
		ctx, end := context.WithTimeout(ctx, findWithin)
		defer end()
		img, err := c.d.Images.Find(ctx, w.namespace, w.reference, secrets)
		c.mu.Lock()
		c.looking--
		f.img, f.err, f.done, f.until = img, err, true, c.d.Clock.Mono()+believeFor
		if err != nil {
			f.until = c.d.Clock.Mono() + doubtFor
		}
		c.mu.Unlock()
		c.stir()
	}()
	return Image{}, false, nil
}

// space is what is known of a namespace.
type space struct {
	restricted bool
	until      time.Duration
}

// space says whether a namespace enforces the restricted profile.
func (c *Controller) space(ctx context.Context, name string) (bool, error) {
	c.mu.Lock()
	s, ok := c.spaces[name]
	now := c.d.Clock.Mono()
	c.mu.Unlock()
	if ok && now < s.until {
		return s.restricted, nil
	}
	restricted, err := c.api.restricted(ctx, name)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	c.spaces[name] = space{restricted, now + time.Minute}
	c.mu.Unlock()
	return restricted, nil
}
