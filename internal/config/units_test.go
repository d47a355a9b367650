package config

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	h := time.Hour
	for in, want := range map[string]time.Duration{
		"30d": 720 * h, "12h": 12 * h, "6s": 6 * time.Second, "1d12h": 36 * h, "2w": 336 * h, "1w1d": 192 * h, "90m": 90 * time.Minute, "1.5h": 90 * time.Minute,
		"250ms": 250 * time.Millisecond, "1m0.5s": 60500 * time.Millisecond, "1h0m0s": h, "0": 0, "0s": 0, "10us": 10 * time.Microsecond, "10µs": 10 * time.Microsecond, "5ns": 5,
		"36500d": 36500 * 24 * h,
	} {
		got, err := ParseDuration(in)
		if err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"": "30d, 12h or 6s", "30": "write 30s, 30h or 30d", "d": "number", "-3d": "number", "+3d": "number", "3 d": "not known", "3days": "not known", "3y": "not known", "3M": "not known",
		"12h1d": "larger units first", "1h1h": "larger units first", "1..5h": "number", ".h": "number", "36501d": "limit", "99999999999999999999d": "limit", "1e3s": "not known", "0x1s": "not known", "infs": "number", "∞": "number",
	} {
		got, err := ParseDuration(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseDuration(%q) = %v, %v, want an error saying %q", in, got, err, want)
		}
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[Duration]string{
		0: "0s", 30 * Day: "30d", Day + 12*Duration(time.Hour): "1d12h", Duration(time.Hour): "1h", Duration(90 * time.Minute): "1h30m", Duration(time.Minute): "1m", Duration(10 * time.Second): "10s",
		Day + 1: "1d1ns", Day + Duration(time.Hour+time.Second): "1d1h0m1s", Duration(250 * time.Millisecond): "250ms", -Day: "-1d", Duration(10 * time.Hour): "10h", Duration(20 * time.Minute): "20m",
	} {
		if got := d.String(); got != want {
			t.Errorf("%d: %q, want %q", int64(d), got, want)
		}
	}
	b, err := json.Marshal(struct{ D Duration }{90 * Day})
	if err != nil || string(b) != `{"D":"90d"}` {
		t.Errorf("JSON %s, %v", b, err)
	}
	var back struct{ D Duration }
	if err := json.Unmarshal(b, &back); err != nil || back.D != 90*Day {
		t.Errorf("back from JSON: %v, %v", back.D, err)
	}
	if err := json.Unmarshal([]byte(`{"D":30}`), &back); err == nil {
		t.Error("a number without a unit was read")
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"30d", "1d12h", "1.5h", "250ms", "0", "1w2d3h4m5s6ms7us8ns", "µs"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 || d > maxDuration {
			t.Fatalf("ParseDuration(%q) = %d", s, d)
		}
		// What is printed is read as the same, up to what a float of a
		// century's nanoseconds loses.
		again, err := ParseDuration(d.String())
		if diff := (again - d).Std().Abs(); err != nil || diff > time.Microsecond {
			t.Fatalf("ParseDuration(%q) = %s, which reads as %v, %v", s, d, again, err)
		}
	})
}

func TestSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "1": 1, "512B": 512, "500MB": 500e6, "10GiB": 10 << 30, "1.5KiB": 1536, "2 TB": 2e12, "1TiB": 1 << 40, "3KB": 3000,
	} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", in, got, err, want)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%d prints as %s, which reads as %d, %v", got, got, again, err)
		}
	}
	for _, in := range []string{"", "GiB", "-1", "10G", "10gib", "1e9", "NaN", "10 GiB ", "0x10", "9999999TiB", "Inf"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", in, got)
		}
	}
	for z, want := range map[Size]string{0: "0B", 10 << 30: "10GiB", 500e6: "500MB", 1001: "1001B", 1024: "1KiB"} {
		if got := z.String(); got != want {
			t.Errorf("%d prints as %q, want %q", int64(z), got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	f.Add("10GiB")
	f.Add("1.5KiB")
	f.Fuzz(func(t *testing.T, s string) {
		z, err := ParseSize(s)
		if err != nil {
			return
		}
		again, err := ParseSize(z.String())
		if err != nil || again != z && z < 1<<53 || z < 0 {
			t.Fatalf("ParseSize(%q) = %d, which prints as %s and reads as %d, %v", s, z, z, again, err)
		}
	})
}
