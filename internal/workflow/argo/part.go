package argo

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// part is a file or folder inside of an artifact that is a folder: subPath.
type part struct {
	whole, at workflow.Expr
}

func (p *part) String() string { return p.whole.String() + " / " + p.at.String() }

var errPart = errors.New("subPath is of an artifact that is a folder of the run's")

// Eval implements [workflow.Expr].
func (p *part) Eval(s workflow.Scope) (workflow.Value, error) {
	v, err := p.whole.Eval(s)
	if err != nil {
		return nil, err
	}
	at, err := p.at.Eval(s)
	if err != nil {
		return nil, err
	}
	text, err := workflow.Text(at)
	if err != nil {
		return nil, err
	}
	// Where it lies is a path from the folder, and stays in it.
	key := strings.TrimPrefix(path.Clean("/"+text), "/")
	if strings.ContainsRune(text, 0) || key == "" {
		return nil, fmt.Errorf("subPath %.80q names nothing inside of the artifact", text)
	}
	f, ok := v.(*workflow.File)
	switch {
	case ok && f.Source == nil && f.Folder && f.Digest != "":
		return &workflow.File{Name: path.Base(key), Source: &task.Source{Kind: "part", URL: f.Digest, Key: key}}, nil
	case ok && f.Source != nil && f.Source.Kind == "part":
		return &workflow.File{Name: path.Base(key), Source: &task.Source{Kind: "part", URL: f.Source.URL, Key: path.Join(f.Source.Key, key)}}, nil
	}
	return nil, errPart
}
