package workflow

import (
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// CheckCron reports whether s is a time table of five fields, or a name such as
// @daily.
func CheckCron(s string) error {
	if n := len(strings.Fields(s)); n != 5 && !strings.HasPrefix(strings.TrimSpace(s), "@") || !gronx.IsValid(strings.TrimSpace(s)) {
		return fmt.Errorf("%.80q is no time table: write minute, hour, day of month, month and day of week, such as \"0 3 * * *\"", s)
	}
	// A day that no month has would never come.
	if _, err := gronx.NextTickAfter(s, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), false); err != nil {
		return fmt.Errorf("%.80q never comes: no month has such a day", s)
	}
	return nil
}

// CheckZone reports whether s names a time zone; "" is UTC.
func CheckZone(s string) error {
	if s == "" {
		return nil
	}
	if _, err := time.LoadLocation(s); err != nil || s == "Local" {
		return fmt.Errorf("%.80q is no time zone: write a name such as Europe/Berlin or UTC", s)
	}
	return nil
}
