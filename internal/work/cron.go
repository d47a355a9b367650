package work

import (
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// nextTime is when a table comes next after a time, in the zone.
//
// When clocks change, a table that names hours comes once at each of its
// times: one that falls into the hour left out comes as much later, one in the
// hour that comes twice at its first time. A table for every hour follows time
// as it passes.
func nextTime(cron string, zone *time.Location, after time.Time) (time.Time, error) {
	local := after.In(zone)
	_, offset := local.Zone()
	fields := strings.Fields(cron)
	if len(fields) == 5 && strings.HasPrefix(fields[1], "*") || cron == "@hourly" || cron == "@5minutes" || cron == "@10minutes" || cron == "@15minutes" || cron == "@30minutes" {
		next, err := gronx.NextTickAfter(cron, after.In(time.FixedZone("", offset)), false)
		if err != nil {
			return next, fmt.Errorf("%q never comes", cron)
		}
		return next.Truncate(time.Minute).UTC(), nil
	}
	wall := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), local.Second(), 0, time.UTC)
	for range 10 { // more than an hour that comes twice can hold of one table's times, skipped below
		next, err := gronx.NextTickAfter(cron, wall, false)
		if err != nil {
			return next, fmt.Errorf("%q never comes", cron)
		}
		next = next.Truncate(time.Minute)
		at := instant(next, zone)
		if at.After(after) {
			return at.UTC(), nil
		}
		if wall = next; next.Minute() < 59 { // still in the hour that comes again
			wall = time.Date(next.Year(), next.Month(), next.Day(), next.Hour(), 59, 0, 0, time.UTC)
		}
	}
	return time.Time{}, fmt.Errorf("%q never comes", cron)
}

// instant is when a clock on the wall shows the time, for the first time; if
// it never does, when it would if it had not been changed.
func instant(wall time.Time, zone *time.Location) time.Time {
	at := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, zone)
	_, before := at.Add(-24 * time.Hour).Zone()
	unchanged := wall.Add(-time.Duration(before) * time.Second).In(zone)
	if shows := func(t time.Time) bool { return t.Hour() == wall.Hour() && t.Minute() == wall.Minute() }; shows(unchanged) || !shows(at) {
		return unchanged
	}
	return at
}
