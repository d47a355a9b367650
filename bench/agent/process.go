package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A cost is what a process has used by a moment.
type cost struct {
	at        time.Time
	cpu       time.Duration
	rss, peak float64 // MiB
	percent   float64 // of one processor, since another moment
}

// measure reads it from /proc; zero where there is none.
func measure(pid int) cost {
	c := cost{at: time.Now()}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		// The name in parentheses may hold spaces; utime and stime are 14th and
		// 15th, in ticks of 10 ms.
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) > 12 {
			u, _ := strconv.Atoi(f[11])
			s, _ := strconv.Atoi(f[12])
			c.cpu = time.Duration(u+s) * 10 * time.Millisecond
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			kib, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "VmRSS:":
				c.rss = kib / 1024
			case "VmHWM:":
				c.peak = kib / 1024
			}
		}
	}
	return c
}

func (c cost) since(o cost) cost {
	c.percent = 100 * float64(c.cpu-o.cpu) / float64(c.at.Sub(o.at))
	return c
}
