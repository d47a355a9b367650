package serve

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
)

// certificate is what the server shows. Its files are read again when they
// change: certificates are renewed while servers run. What cannot be read then,
// because one of the two files was not written yet, leaves the old one in place.
type certificate struct {
	files config.TLS
	clock clock.Clock
	log   *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	of      [2]time.Time // when the files were written that it was read from
	next    time.Duration
}

// lookAgain is how often the files are looked at, while somebody connects.
const lookAgain = 10 * time.Second

func openCertificate(files config.TLS, c clock.Clock, log *slog.Logger) (*certificate, error) {
	x := &certificate{files: files, clock: c, log: log}
	if err := x.read(x.written()); err != nil {
		return nil, err
	}
	x.next = c.Mono() + lookAgain
	return x, nil
}

// written is when the files were, or nothing where they cannot be found.
func (x *certificate) written() (at [2]time.Time) {
	for i, file := range []string{x.files.Cert, x.files.Key} {
		if info, err := os.Stat(file); err == nil {
			at[i] = info.ModTime()
		}
	}
	return at
}

func (x *certificate) read(at [2]time.Time) error {
	c, err := tls.LoadX509KeyPair(x.files.Cert, x.files.Key)
	if err != nil {
		return fmt.Errorf("read the TLS certificate %s and its key %s: %w", x.files.Cert, x.files.Key, err)
	}
	x.current, x.of = &c, at
	return nil
}

// get implements tls.Config.GetCertificate.
func (x *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.clock.Mono()
	if now < x.next {
		return x.current, nil
	}
	x.next = now + lookAgain
	if at := x.written(); at != x.of {
		if err := x.read(at); err != nil {
			x.log.Warn("the certificate has changed and is not taken: the old one is shown", "error", err)
		} else {
			x.log.Info("the certificate has changed", "ends", x.current.Leaf.NotAfter)
		}
	}
	return x.current, nil
}
