package rules

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones, also where the machine has none: an image with one binary in it

	"cairn.dev/cairn/internal/config"
)

// week is a schedule that was understood.
type week struct {
	days  [7]bool // by time.Weekday
	hours []window
	zone  *time.Location
}

// A window is minutes of a day, [from, to). One that ends before it begins goes
// on into the next day.
type window struct{ from, to int }

const minutes = 24 * 60

func always() week {
	return week{days: [7]bool{true, true, true, true, true, true, true}, hours: []window{{0, minutes}}, zone: time.UTC}
}

// Open reports whether pull requests may be opened at that time.
func (r *Rules) Open(now time.Time) bool {
	w := r.week
	t := now.In(w.zone)
	today, at := t.Weekday(), t.Hour()*60+t.Minute()
	for _, h := range w.hours {
		switch {
		case h.from < h.to:
			if w.days[today] && h.from <= at && at < h.to {
				return true
			}
		case w.days[today] && at >= h.from, w.days[(today+6)%7] && at < h.to:
			return true
		}
	}
	return false
}

// Opens is when pull requests may be opened next: now, if they may.
func (r *Rules) Opens(now time.Time) time.Time {
	if r.Open(now) {
		return now
	}
	var next time.Time
	w := r.week
	t := now.In(w.zone)
	for d := range 9 {
		day := time.Date(t.Year(), t.Month(), t.Day()+d, 12, 0, 0, 0, w.zone)
		if !w.days[day.Weekday()] {
			continue
		}
		for _, h := range w.hours {
			from := time.Date(day.Year(), day.Month(), day.Day(), 0, h.from, 0, 0, w.zone)
			if from.After(now) && (next.IsZero() || from.Before(next)) {
				next = from
			}
		}
	}
	return next
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseDays reads mon, mon-fri, or sat-mon.
func parseDays(s string, days *[7]bool) error {
	first, last, isRange := strings.Cut(strings.ToLower(strings.TrimSpace(s)), "-")
	if !isRange {
		last = first
	}
	from, err := parseDay(first)
	if err != nil {
		return err
	}
	to, err := parseDay(last)
	if err != nil {
		return err
	}
	for d := from; ; d = (d + 1) % 7 {
		days[d] = true
		if d == to {
			return nil
		}
	}
}

func parseDay(s string) (int, error) {
	for i, name := range dayNames {
		if s == name || s == strings.ToLower(time.Weekday(i).String()) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%.40q is no day: write mon, tue, wed, thu, fri, sat, sun, or a range such as mon-fri%s", s, config.Nearest(s, dayNames))
}

// parseHours reads 06-18, 6-18, 22-06 or 06:30-18:00.
func parseHours(s string) (window, error) {
	first, last, ok := strings.Cut(strings.ReplaceAll(s, " ", ""), "-")
	from, okFrom := parseTime(first)
	to, okTo := parseTime(last)
	switch {
	case !ok || !okFrom || !okTo || from == minutes:
		return window{}, fmt.Errorf("%.40q are no hours: write 06-18, 22-06 or 06:30-18:00", s)
	case from == to:
		return window{}, fmt.Errorf("%.40q ends when it begins: write 00-24 for the whole day", s)
	}
	return window{from, to}, nil
}

// parseTime reads hours, and perhaps minutes, from 00 to 24.
func parseTime(s string) (int, bool) {
	h, m, ok := strings.Cut(s, ":")
	if !ok {
		m = "00"
	}
	hours, err := strconv.ParseUint(h, 10, 8)
	if err != nil || len(h) > 2 || len(m) != 2 {
		return 0, false
	}
	mins, err := strconv.ParseUint(m, 10, 8)
	at := int(hours)*60 + int(mins)
	return at, err == nil && mins < 60 && at <= minutes
}
