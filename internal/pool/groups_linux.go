package pool

import "errors"

// groups are control groups, one for each task.
type groups struct{}

func openGroups() (*groups, error) { return &groups{}, errors.New("not yet") }

type group struct{}

func (*groups) join(int, amount) (*group, error) { return &group{}, nil }
func (*groups) close()                           {}
func (*group) leave()                            {}
func (*group) killed() int                       { return 0 }
