package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The formats of senders. Each reader takes what it needs and leaves what it
// does not know alone, so that a sender can add to its format.

// readDistribution reads an envelope of events (distribution,
// "Notifications").
func readDistribution(body []byte) ([]event, error) {
	var in struct {
		Events *[]struct {
			Action string `json:"action"`
			Target struct {
				Repository string `json:"repository"`
				Tag        string `json:"tag"`
				Digest     string `json:"digest"`
			} `json:"target"`
			Request struct {
				Host string `json:"host"`
			} `json:"request"`
		} `json:"events"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	if in.Events == nil {
		return nil, errors.New("it has no events")
	}
	var out []event
	for _, e := range *in.Events {
		if e.Action == "push" {
			out = append(out, event{e.Request.Host, e.Target.Repository, e.Target.Tag, e.Target.Digest})
		}
	}
	return out, nil
}

// readDockerHub reads Docker Hub's webhook.
func readDockerHub(body []byte) ([]event, error) {
	var in struct {
		PushData struct {
			Tag string `json:"tag"`
		} `json:"push_data"`
		Repository struct {
			RepoName string `json:"repo_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	if in.Repository.RepoName == "" {
		return nil, errors.New("it has no repository.repo_name")
	}
	return []event{{dockerHub, in.Repository.RepoName, in.PushData.Tag, ""}}, nil
}

// readGitHub reads GitHub's events about packages. "package" and
// "registry_package" say the same about different fields.
func readGitHub(kind string, body []byte) ([]event, error) {
	type packaged struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		Type      string `json:"package_type"`
		Owner     struct {
			Login string `json:"login"`
		} `json:"owner"`
		Version struct {
			Version  string `json:"version"`
			URL      string `json:"package_url"`
			Metadata struct {
				Tag struct {
					Name   string `json:"name"`
					Digest string `json:"digest"`
				} `json:"tag"`
			} `json:"container_metadata"`
		} `json:"package_version"`
	}
	var in struct {
		Action          string    `json:"action"`
		Package         *packaged `json:"package"`
		RegistryPackage *packaged `json:"registry_package"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	p := in.RegistryPackage
	if kind == "package" || p == nil {
		p = in.Package
	}
	switch {
	case kind == "ping":
		return nil, nil
	case kind != "package" && kind != "registry_package":
		return nil, fmt.Errorf("the event is %.40q: have GitHub send only Packages and Registry packages", kind)
	case p == nil:
		return nil, errors.New("it has no package")
	case in.Action != "published" && in.Action != "updated" || !strings.EqualFold(p.Type, "container"):
		return nil, nil
	}
	e := event{host: "ghcr.io", tag: p.Version.Metadata.Tag.Name, digest: p.Version.Metadata.Tag.Digest}
	if e.digest == "" {
		e.digest = p.Version.Version
	}
	owner := p.Namespace
	if owner == "" {
		owner = p.Owner.Login
	}
	// An image's name is in small letters, an owner's need not be.
	e.repository = strings.ToLower(owner + "/" + p.Name)
	return []event{e}, nil
}

// readHarbor reads both payload formats of Harbor's webhooks, its own and
// CloudEvents.
func readHarbor(body []byte) ([]event, error) {
	type data struct {
		Resources []struct {
			Digest string `json:"digest"`
			Tag    string `json:"tag"`
			URL    string `json:"resource_url"`
		} `json:"resources"`
		Repository struct {
			FullName string `json:"repo_full_name"`
		} `json:"repository"`
	}
	var in struct {
		Type      string `json:"type"`
		EventData data   `json:"event_data"`
		Data      data   `json:"data"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	d := in.EventData
	switch in.Type {
	case "PUSH_ARTIFACT":
	case "harbor.artifact.pushed":
		d = in.Data
	case "":
		return nil, errors.New("it has no type")
	default:
		return nil, nil
	}
	var out []event
	for _, r := range d.Resources {
		host, _, _ := strings.Cut(r.URL, "/")
		out = append(out, event{host, d.Repository.FullName, r.Tag, r.Digest})
	}
	return out, nil
}

// readQuay reads the notification "Push to Repository" of Quay.
func readQuay(body []byte) ([]event, error) {
	var in struct {
		Repository string          `json:"repository"`
		DockerURL  string          `json:"docker_url"`
		Updated    json.RawMessage `json:"updated_tags"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	if in.Repository == "" {
		return nil, errors.New("it has no repository")
	}
	var tags []string
	if len(in.Updated) > 0 && json.Unmarshal(in.Updated, &tags) != nil {
		// Older ones have an object with what each tag names.
		var byTag map[string]json.RawMessage
		if err := json.Unmarshal(in.Updated, &byTag); err != nil {
			return nil, fmt.Errorf("its updated_tags are no tags: %w", err)
		}
		for t := range byTag {
			tags = append(tags, t)
		}
		slices.Sort(tags)
	}
	host, _, _ := strings.Cut(in.DockerURL, "/")
	var out []event
	for _, t := range tags {
		out = append(out, event{host, in.Repository, t, ""})
	}
	return out, nil
}

// readECR reads an event of EventBridge about an image in ECR.
func readECR(body []byte) ([]event, error) {
	var in struct {
		DetailType string `json:"detail-type"`
		Account    string `json:"account"`
		Region     string `json:"region"`
		Detail     struct {
			Result     string `json:"result"`
			Action     string `json:"action-type"`
			Repository string `json:"repository-name"`
			Digest     string `json:"image-digest"`
			Tag        string `json:"image-tag"`
		} `json:"detail"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	if in.DetailType == "" {
		return nil, errors.New("it has no detail-type")
	}
	if in.DetailType != "ECR Image Action" || in.Detail.Action != "PUSH" || in.Detail.Result != "SUCCESS" {
		return nil, nil
	}
	host := in.Account + ".dkr.ecr." + in.Region + ".amazonaws.com"
	if strings.HasPrefix(in.Region, "cn-") {
		host += ".cn"
	}
	return []event{{host, in.Detail.Repository, in.Detail.Tag, in.Detail.Digest}}, nil
}
