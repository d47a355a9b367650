package choose

import (
	"fmt"
	"time"
)

// passed lists what is newer than the choice and was not taken.
func (c *chooser) passed(o order, refused newest, out Choice) []Passed {
	var list []Passed
	var chosen *candidate
	if out.State == Newer {
		for i := range c.f.Tags {
			if t := &c.f.Tags[i]; t.Name == out.Tag {
				if cand, ok := o.read(t); ok {
					chosen = &cand
				}
				break
			}
		}
	}
	for _, r := range refused {
		if chosen == nil || o.compare(r.candidate, *chosen) > 0 {
			list = append(list, Passed{r.tag.Name, r.why})
		}
	}
	return list
}

// because is the reason of a choice among tags, for people.
func (c *chooser) because(o order, out Choice, alike int) string {
	if out.Reason != "" {
		return out.Reason
	}
	over := ""
	if len(out.Passed) > 0 {
		over = fmt.Sprintf("%s: %s", out.Passed[0].Tag, out.Passed[0].Reason)
		if n := len(out.Passed) - 1; n > 0 {
			over += fmt.Sprintf(" (and %d more)", n)
		}
	}
	switch out.State {
	case Newer:
		how := "newer than"
		if o.byTime() {
			how = "pushed after"
			if p := o.(*pushes); !p.pushed {
				how = "first seen after"
			}
		}
		s := fmt.Sprintf("%s is %s %s", out.Tag, how, c.tag)
		if over != "" {
			s += "; passed over: " + over
		}
		return s
	case Held:
		return fmt.Sprintf("%s waits: %s", out.Tag, c.held(out))
	case Blocked:
		for _, p := range out.Passed {
			if p.Tag == out.Tag {
				return fmt.Sprintf("%s is newer, but %s", p.Tag, p.Reason)
			}
		}
		return fmt.Sprintf("%s is newer, but may not be chosen", out.Tag)
	}
	switch {
	case over != "":
		return fmt.Sprintf("nothing newer than %s may be chosen; %s", c.tag, over)
	case alike == 0 && c.listed != nil && len(c.f.Tags) > 1:
		return fmt.Sprintf("none of the other %d tags is written like %s", len(c.f.Tags)-1, c.tag)
	case c.listed == nil:
		return fmt.Sprintf("the tag %s is gone from the registry, and none of %d tags is newer", c.tag, len(c.f.Tags))
	}
	return fmt.Sprintf("%s is the newest of %s written like it", c.tag, count(alike+1, "tag"))
}

func (c *chooser) held(out Choice) string {
	return fmt.Sprintf("due %s, after a cooldown of %s", moment(out.Until), length(c.p.Cooldown))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// moment and length are times as people read them.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func length(d time.Duration) string {
	if day := 24 * time.Hour; d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// short is the part of a digest that tells images apart.
func short(digest string) string { return digest[:min(len(digest), 19)] }
