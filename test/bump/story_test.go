package bump_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// infra is Terraform as people write it: an image through a local and a
// variable whose value stands in terraform.tfvars, one for each service out of
// a map, one within YAML, and one of another registry.
func (p *place) infra() map[string]string {
	return map[string]string{
		"versions.tf": `terraform {
  required_providers {
    kubernetes = { source = "hashicorp/kubernetes", version = "1.13.4" }
    kubectl    = { source = "gavinbunney/kubectl", version = "1.19.0" }
  }
}

provider "kubernetes" {
  load_config_file = false
  host             = "https://127.0.0.1:1"
}

provider "kubectl" {
  load_config_file = false
  host             = "https://127.0.0.1:1"
}
`,
		"main.tf": fmt.Sprintf(`variable "web_tag" {
  type = string
}

locals {
  registry = %q
  web      = "${local.registry}/app/web:${var.web_tag}"	# a tab, and a comment
}

resource "kubernetes_deployment" "web" {
  metadata {
    name = "web"
  }
  spec {
    selector {
      match_labels = { app = "web" }
    }
    template {
      metadata {
        labels = { app = "web" }
      }
      spec {
        container {
          name  = "web"
          image = local.web
        }
      }
    }
  }
}

module "batch" {
  source = "./batch"
  image  = "%s/app/batch:1.0.0"
}

resource "kubectl_manifest" "job" {
  yaml_body = <<-YAML
    apiVersion: batch/v1
    kind: Job
    metadata:
      name: job
      namespace: default
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - name: job
            image: %s/app/job:1.0.0
  YAML
}
`, p.cairn, p.other, p.cairn),
		"terraform.tfvars": "web_tag = \"1.0.0\" # moved by pull requests\n",
		"batch/main.tf": `variable "image" {
  type = string
}

resource "kubernetes_pod" "batch" {
  metadata {
    name = "batch"
  }
  spec {
    container {
      name  = "batch"
      image = var.image
    }
  }
}
`,
	}
}

// TestPullRequest is the story: a push becomes a pull request that Terraform
// accepts; a still newer one updates it; a person's no is remembered; merged
// code is a use; and nothing of it happens twice.
func TestPullRequest(t *testing.T) {
	p := newPlace(t)
	for _, ref := range []string{"app/web:1.0.0", "app/job:1.0.0"} {
		p.push(p.cairn, ref)
	}
	p.push(p.other, "app/batch:1.0.0")
	p.forge.Repository(t, p.people, "infra", p.infra())
	p.forge.Collaborator(t, p.people, "infra", p.bot)
	p.forge.Hook(t, p.people, "people/infra", "http://"+p.cairn+"/hooks/forge/gitea", secret)
	p.command("bump", "check", "people/infra")
	status := p.command("bump", "status")
	for _, want := range []string{"app/web:1.0.0", "app/job:1.0.0", "app/batch:1.0.0"} {
		if !strings.Contains(status, want) {
			t.Fatalf("the status does not know %s:\n%s", want, status)
		}
	}
	if n := len(p.pulls("infra")); n != 0 {
		t.Fatalf("%d pull requests although nothing is newer", n)
	}
	// What code names is in use, whoever pulls it.
	if why := p.command("why", "app/job:1.0.0"); !strings.Contains(why, "code") || !strings.Contains(why, "people/infra") {
		t.Errorf("why does not name the code:\n%s", why)
	}

	p.push(p.cairn, "app/web:1.1.0")
	began := time.Now()
	web := p.open("infra", "web", "1.1.0")
	t.Logf("from the end of the push to the pull request: %s", time.Since(began).Round(time.Millisecond))
	if got := p.file("infra", web.Head.Ref, "terraform.tfvars"); got != "web_tag = \"1.1.0\" # moved by pull requests\n" {
		t.Errorf("terraform.tfvars of the branch: %q", got)
	}
	if got, was := p.file("infra", web.Head.Ref, "main.tf"), p.infra()["main.tf"]; got != was {
		t.Errorf("main.tf of the branch changed: %s", got)
	}
	for _, want := range []string{"terraform.tfvars", "local.web", "var.web_tag", "1.0.0", "1.1.0", "linux/amd64"} {
		if !strings.Contains(web.Body, want) {
			t.Errorf("the body does not name %q:\n%s", want, web.Body)
		}
	}
	images := p.resolved("infra", web.Head.Ref)
	for address, want := range map[string]string{"kubernetes_deployment.web": "app/web:1.1.0", "module.batch.kubernetes_pod.batch": "app/batch:1.0.0", "kubectl_manifest.job": "app/job:1.0.0"} {
		if images[address] != want {
			t.Errorf("Terraform plans %q for %s, want %q", images[address], address, want)
		}
	}

	// Within YAML, and of the other registry, which says itself that there is
	// something new.
	p.push(p.cairn, "app/job:1.2.3")
	p.push(p.other, "app/batch:1.0.1")
	job, batch := p.open("infra", "job", "1.2.3"), p.open("infra", "batch", "1.0.1")
	if got := p.resolved("infra", job.Head.Ref)["kubectl_manifest.job"]; got != "app/job:1.2.3" {
		t.Errorf("Terraform plans %q", got)
	}
	if got := p.resolved("infra", batch.Head.Ref)["module.batch.kubernetes_pod.batch"]; got != "app/batch:1.0.1" {
		t.Errorf("Terraform plans %q", got)
	}

	// Still newer: the same pull request.
	p.push(p.cairn, "app/web:1.2.0")
	if again := p.open("infra", "web", "1.2.0"); again.Number != web.Number {
		t.Errorf("a second pull request, %d beside %d", again.Number, web.Number)
	}

	// A person says no to that version, and is not asked again.
	p.forge.Do(t, p.people, "PATCH", fmt.Sprintf("/repos/people/infra/pulls/%d", web.Number), map[string]any{"state": "closed"}, nil)
	p.until("the no is remembered", func() error {
		if s := p.command("bump", "status"); !strings.Contains(s, "declined") {
			return fmt.Errorf("%s", s)
		}
		return nil
	})
	p.command("bump", "check", "people/infra")
	for _, x := range p.pulls("infra") {
		if x.State == "open" && strings.Contains(x.Title, "web") {
			t.Errorf("pull request %d was opened although a person closed it: %s", x.Number, x.Title)
		}
	}
	p.push(p.cairn, "app/web:1.3.0")
	p.open("infra", "web", "1.3.0")

	// Merged: the code names the new image, and nothing is left to propose.
	p.forge.Do(t, p.people, "POST", fmt.Sprintf("/repos/people/infra/pulls/%d/merge", job.Number), map[string]any{"Do": "merge"}, nil)
	p.until("the merge is seen", func() error {
		if why := p.command("why", "app/job:1.2.3"); !strings.Contains(why, "people/infra") {
			return fmt.Errorf("%s", why)
		}
		return nil
	})

	// The base moves: what is open still applies to it.
	p.forge.Push(t, p.people, "people/infra", "main", map[string]string{"terraform.tfvars": "# who runs what\nweb_tag = \"1.0.0\" # moved by pull requests\n"})
	p.until("the branch follows the base", func() error {
		x := p.open("infra", "web", "1.3.0")
		if got := p.file("infra", x.Head.Ref, "terraform.tfvars"); got != "# who runs what\nweb_tag = \"1.3.0\" # moved by pull requests\n" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	// Done by hand: the pull request has nothing left to say.
	p.forge.Push(t, p.people, "people/infra", "main", map[string]string{"terraform.tfvars": "web_tag = \"1.3.0\"\n"})
	p.until("the pull request is closed", func() error {
		for _, x := range p.pulls("infra") {
			if x.State == "open" && strings.Contains(x.Title, "web") {
				return fmt.Errorf("%+v", x)
			}
		}
		return nil
	})
}

// TestBrokenRules: a .cairn.yaml that cannot be read is answered where people
// look, with the line, and nothing else happens until it is right.
func TestBrokenRules(t *testing.T) {
	p := newPlace(t)
	for _, ref := range []string{"app/web:1.0.0", "app/web:1.1.0", "app/job:1.0.0"} {
		p.push(p.cairn, ref)
	}
	p.push(p.other, "app/batch:1.0.0")
	files := p.infra()
	files[".cairn.yaml"] = "rules:\n- images: \"**\"\n  cooldwon: 3d\n"
	p.forge.Repository(t, p.people, "infra", files)
	p.forge.Collaborator(t, p.people, "infra", p.bot)
	p.forge.Hook(t, p.people, "people/infra", "http://"+p.cairn+"/hooks/forge/gitea", secret)
	p.command("bump", "check", "people/infra")
	var issues []struct{ State, Title, Body string }
	list := func() {
		issues = nil
		p.forge.Do(t, p.people, "GET", "/repos/people/infra/issues?type=issues&state=all", nil, &issues)
	}
	list()
	if len(issues) != 1 || !strings.Contains(issues[0].Body, "cooldwon") || !strings.Contains(issues[0].Body, ".cairn.yaml:3") {
		t.Fatalf("issues: %+v", issues)
	}
	if n := len(p.pulls("infra")); n != 0 {
		t.Fatalf("%d pull requests by rules that cannot be read", n)
	}
	p.forge.Push(t, p.people, "people/infra", "main", map[string]string{".cairn.yaml": "rules:\n- images: \"**\"\n  cooldown: 0s\n"})
	p.open("infra", "web", "1.1.0")
	p.until("the issue is closed", func() error {
		if list(); len(issues) != 1 || issues[0].State != "closed" {
			return fmt.Errorf("%+v", issues)
		}
		return nil
	})
}
