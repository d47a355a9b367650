package usage

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
)

func hashed(n int) image.Digest {
	return image.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))))
}

// BenchmarkPull pulls images of 1000 repositories, from one goroutine and from
// many.
func BenchmarkPull(b *testing.B) {
	w := newWorld(b)
	w.l.clock = clock.Real()
	const most = 100_000
	digests, repos := make([]image.Digest, most), make([]string, 1000)
	for i := range digests {
		digests[i] = hashed(i)
	}
	for i := range repos {
		repos[i] = fmt.Sprint("app/r", i)
	}
	for i, d := range digests {
		w.l.Pull(repos[i%len(repos)], d, "node")
	}
	for _, n := range []int{100, most} {
		b.Run(fmt.Sprint("one/", n), func(b *testing.B) {
			b.ReportAllocs()
			defer perOp(b, cpu())
			for i := 0; b.Loop(); i = (i + 7919) % n {
				w.l.Pull(repos[i%len(repos)], digests[i], "node")
			}
		})
		b.Run(fmt.Sprint("many/", n), func(b *testing.B) {
			defer perOp(b, cpu())
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i = (i + 7919) % n {
					w.l.Pull(repos[i%len(repos)], digests[i], "node")
				}
			})
		})
	}
}

// BenchmarkLastUse is what retention asks for every image.
func BenchmarkLastUse(b *testing.B) {
	w := newWorld(b)
	digests := make([]image.Digest, 100_000)
	for i := range digests {
		digests[i] = hashed(i)
		w.l.Pull("app/web", digests[i], "node")
		w.l.Pull("app/web", digests[i], "node2")
	}
	b.ReportAllocs()
	defer perOp(b, cpu())
	for i := 0; b.Loop(); i = (i + 7919) % len(digests) {
		w.l.LastUse(digests[i], "app/web")
	}
}

// BenchmarkReadStatement reads the JSON of 100 uses.
func BenchmarkReadStatement(b *testing.B) {
	body := hostBody(b, 0)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	defer perOp(b, cpu())
	for b.Loop() {
		if _, err := ReadStatement(bytes.NewReader(body), 0); err != nil {
			b.Fatal(err)
		}
	}
}

const (
	benchReporters = 10_000
	benchUses      = 100
	benchImages    = 50_000
)

func hostBody(b *testing.B, r int) []byte {
	s := Statement{Reporter: fmt.Sprint("host-", r), Period: time.Minute, Complete: true, Statement: "a", Sources: []Source{Container}}
	for u := range benchUses {
		s.Uses = append(s.Uses, Use{Digest: hashed((r*37 + u*101) % benchImages), Repository: fmt.Sprint("team/app-", u*101%1000), Source: Container, Subject: fmt.Sprintf("host-%d/app-%d", r, u), At: day0})
	}
	body, err := json.Marshal(s)
	if err != nil {
		b.Fatal(err)
	}
	return body
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perOp reports the time of the processor, which other work on the machine does
// not change.
func perOp(b *testing.B, start time.Duration) {
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
}

// rss is the most memory the process ever had, in MiB.
func rss() float64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.SplitSeq(string(b), "\n") {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}

// BenchmarkMillion states 1,000,000 containers in full, by 10,000 reporters of
// 100 each as JSON under gzip, once per minute of a clock that is moved. It
// prints the share of a core that a minute takes: cores/restate when everything
// is said again, cores/write for the writing of all rows that is due once
// in 30 to 60 minutes, and the memory of the process at its highest.
// Run it alone: go test -run xxx -bench Million -benchtime 1x ./internal/usage
func BenchmarkMillion(b *testing.B) {
	w := newWorld(b)
	path := filepath.Join(b.TempDir(), "bodies")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	bw := bufio.NewWriter(f)
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	sizes := make([]int, benchReporters)
	for r := range benchReporters {
		zipped.Reset()
		zw.Reset(&zipped)
		zw.Write(hostBody(b, r))
		zw.Close()
		sizes[r] = zipped.Len()
		bw.Write(zipped.Bytes())
	}
	bw.Flush()
	runtime.GC()

	var zr gzip.Reader
	buf := make([]byte, 0, 1<<20)
	round := func() (restate, flush time.Duration) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		begin := cpu()
		for r := range benchReporters {
			buf = buf[:sizes[r]]
			if _, err := io.ReadFull(f, buf); err != nil {
				b.Fatal(err)
			}
			if err := zr.Reset(bytes.NewReader(buf)); err != nil {
				b.Fatal(err)
			}
			s, err := ReadStatement(&zr, 0)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := w.l.Report(w.ctx, Identity{}, s); err != nil {
				b.Fatal(err)
			}
			if r%(benchReporters/30) == 0 {
				before := cpu()
				w.clock.Advance(2 * time.Second)
				w.tick()
				flush += cpu() - before
			}
		}
		return cpu() - begin - flush, flush
	}
	first, firstWrite := round()
	b.Logf("first statement of all: %.1f s to record, %.1f s to write", first.Seconds(), firstWrite.Seconds())
	for b.Loop() {
		var sum, marks time.Duration
		const rounds = 5
		for range rounds {
			s, m := round()
			sum, marks = sum+s, marks+m
		}
		w.clock.Advance(time.Hour) // now every row is due
		_, write := round()
		write -= marks / rounds
		const minute = float64(time.Minute)
		b.ReportMetric(float64(sum)/rounds/minute, "cores/restate")
		b.ReportMetric(float64(marks)/rounds/minute, "cores/marks")
		b.ReportMetric(float64(write)/45/minute, "cores/write")
		b.ReportMetric(rss(), "MiB")
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB-live")
	}
	if st := w.l.Stats(); st.Uses != benchReporters*benchUses {
		b.Fatalf("%+v", st)
	}
	if n := w.inDB("SELECT count(*) FROM use"); n != benchReporters*benchUses {
		b.Fatalf("%d rows are stored", n)
	}
	start := cpu()
	if err := w.l.Close(); err != nil {
		b.Fatal(err)
	}
	closed := cpu()
	w.crash()
	w.start()
	b.Logf("a clean stop takes %.1f s, a start %.1f s", (closed - start).Seconds(), (cpu() - closed).Seconds())
}
