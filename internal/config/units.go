package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Day is 24 hours, whatever the calendar says.
const Day = Duration(24 * time.Hour)

// maxDuration is a century: more is a slip of the finger, and sums of two stay
// far from overflow.
const maxDuration = 36500 * Day

// Duration is a length of time that people write as 30d, 12h, 6s or 1d12h.
// It is a flag value, and text in JSON and YAML.
type Duration time.Duration

var durationUnits = []struct {
	name string
	d    time.Duration
}{
	// Largest first: parts must come in this order.
	{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
	{"ms", time.Millisecond}, {"us", time.Microsecond}, {"µs", time.Microsecond}, {"ns", time.Nanosecond},
}

// ParseDuration reads numbers with the units w, d, h, m, s, ms, us and ns,
// largest first. It takes what [time.Duration.String] prints for positive times,
// and 0 without a unit. Negative times are refused.
func ParseDuration(s string) (Duration, error) {
	bad := func(why string) (Duration, error) {
		return 0, fmt.Errorf("%.40q is no duration: %s", s, why)
	}
	if s == "0" {
		return 0, nil
	}
	if s == "" {
		return bad("write a number and a unit, such as 30d, 12h or 6s")
	}
	rest, total, unit := s, 0.0, -1
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if n < 0 {
			return bad(fmt.Sprintf("it has no unit: write %.20ss, %.20sh or %.20sd", s, s, s))
		}
		v, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return bad("write a number and a unit, such as 30d, 12h or 6s")
		}
		rest = rest[n:]
		n = strings.IndexFunc(rest, func(r rune) bool { return r >= '0' && r <= '9' || r == '.' })
		if n < 0 {
			n = len(rest)
		}
		u := unitIndex(rest[:n])
		if u < 0 {
			return bad(fmt.Sprintf("the unit %.10q is not known: use d, h, m, s or ms", rest[:n]))
		}
		if u <= unit {
			return bad("write larger units first and each once, such as 1d12h")
		}
		unit, rest = u, rest[n:]
		total += v * float64(durationUnits[u].d)
	}
	if total > float64(maxDuration) {
		return bad(fmt.Sprintf("the limit is %s", maxDuration))
	}
	return Duration(math.Round(total)), nil
}

func unitIndex(s string) int {
	for i, u := range durationUnits {
		if u.name == s {
			return i
		}
	}
	return -1
}

// String prints days, then what [time.Duration.String] prints without zero parts.
func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	if d < 0 {
		return "-" + (-d).String()
	}
	var b strings.Builder
	if days := d / Day; days > 0 {
		fmt.Fprintf(&b, "%dd", days)
		d %= Day
	}
	if d > 0 {
		s := time.Duration(d).String() // 12h0m0s, 1m0.5s, 0s never
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		b.WriteString(s)
	}
	return b.String()
}

// Std is the duration in the type of the standard library.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Set implements the interface of flags.
func (d *Duration) Set(s string) (err error) {
	*d, err = ParseDuration(s)
	return err
}

// Type names the value in the help of flags.
func (d *Duration) Type() string { return "duration" }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error { return d.Set(string(b)) }

// Size is a number of bytes that people write as 10GiB or 500MB. It is a flag
// value, and text in JSON and YAML.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// ParseSize reads a number with a unit: B, KB, MB, GB and TB are powers of
// 1000, KiB, MiB, GiB and TiB of 1024. A number alone is bytes.
func ParseSize(s string) (Size, error) {
	num, factor := s, int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			num, factor = strings.TrimSuffix(n, " "), u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || num == "" || strings.Trim(num, "0123456789.") != "" {
		return 0, fmt.Errorf("%.40q is no size: write bytes, or a number with KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 10GiB", s)
	}
	if v*float64(factor) > 1<<60 {
		return 0, fmt.Errorf("size %.40q is too large: the limit is %d bytes", s, int64(1)<<60)
	}
	return Size(math.Round(v * float64(factor))), nil
}

// String prints the size exactly, in the largest unit that divides it.
func (z Size) String() string {
	if z == 0 {
		return "0B"
	}
	for _, u := range sizeUnits {
		if int64(z)%u.bytes == 0 {
			return strconv.FormatInt(int64(z)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10) + "B" // not reached: B divides all
}

// Set implements the interface of flags.
func (z *Size) Set(s string) (err error) {
	*z, err = ParseSize(s)
	return err
}

// Type names the value in the help of flags.
func (z *Size) Type() string { return "size" }

// MarshalText implements encoding.TextMarshaler.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (z *Size) UnmarshalText(b []byte) error { return z.Set(string(b)) }
