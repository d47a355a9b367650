package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

type menu struct {
	Day    string `yaml:"day" json:"day" doc:"When."`
	Dishes []dish `yaml:"dishes" json:"dishes" doc:"What."`
	hidden int
}

type dish struct {
	Name string   `yaml:"name" json:"name" required:"yes" doc:"Its name."`
	Size string   `yaml:"size" json:"size" enum:"small,large" doc:"How much."`
	Time Duration `yaml:"time" json:"time" doc:"How long."`
}

func menus() Form[menu] {
	return Form[menu]{Title: "menu.yaml", Default: func() *menu { return &menu{Day: "mon", hidden: 7} },
		Entry: func(reflect.Type) reflect.Value { return reflect.ValueOf(dish{Size: "small"}) }}
}

func TestForm(t *testing.T) {
	r := menus().Read("m", []byte("dishes:\n- {name: soup, time: 1h}\n- name: bread\n  size: large\n"))
	want := &menu{Day: "mon", Dishes: []dish{{"soup", "small", Day / 24}, {"bread", "large", 0}}, hidden: 7}
	if r.Err() != nil || !reflect.DeepEqual(r.Value, want) {
		t.Errorf("%+v, %v, want %+v", r.Value, r.Err(), want)
	}
	if !r.Has("dishes#2.size") || r.Has("dishes#1.size") || r.Has("day") {
		t.Error("it does not know what the file has")
	}
	r.Fail("dishes#2.size", "too %s", "large")
	r.Fail("dishes#1.size", "too small")
	if err := fmt.Sprint(r.Err()); err != "m:2: dishes#1.size: too small\nm:4: dishes#2.size: too large" {
		t.Error(err)
	}
	// What could not be read is not judged as well, but its neighbours are.
	r = menus().Read("m", []byte("dishes:\n- {nam: soup, time: soon}\nhidden: 1\n"))
	r.Fail("dishes#1.time", "too late")
	r.Fail("dishes#1.name", "no name")
	var e *Error
	if !errors.As(r.Err(), &e) || len(e.Problems) != 4 || !strings.Contains(e.Error(), `m:2: unknown key "nam" in dishes#1; did you mean "name"?`) {
		t.Errorf("%v", r.Err())
	}
	keys := []Key{{"day", "mon", "", "When."}, {"dishes[]", "", "", "What."}, {"dishes[].name", "", "", "Its name."}, {"dishes[].size", "small", "small,large", "How much."}, {"dishes[].time", "", "", "How long."}}
	if got := menus().Keys(); !reflect.DeepEqual(got, keys) {
		t.Errorf("%+v, want %+v", got, keys)
	}
	if s := string(menus().Schema()); !strings.Contains(s, `"title": "menu.yaml"`) || !strings.Contains(s, `"default": "small"`) || strings.Contains(s, "hidden") {
		t.Error(s)
	}
	if s := Nearest("smal", []string{"small", "large"}); s != `; did you mean "small"?` {
		t.Error(s)
	}
}
