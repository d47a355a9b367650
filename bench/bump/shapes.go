package main

import (
	"fmt"
	"strings"
)

// deployment is a Deployment as people write it, with the image given by an
// expression.
func deployment(name, image string) string {
	return fmt.Sprintf(`resource "kubernetes_deployment" %[1]q {
  metadata {
    name      = %[1]q
    namespace = "default"
    labels    = local.labels_%[1]s
  }

  spec {
    replicas = 2

    selector {
      match_labels = { app = %[1]q }
    }

    template {
      metadata {
        labels = { app = %[1]q }
      }

      spec {
        container {
          name              = %[1]q
          image             = %[2]s
          image_pull_policy = "IfNotPresent"

          port {
            container_port = 8080
          }

          env {
            name  = "LOG_LEVEL"
            value = "info"
          }

          resources {
            limits   = { cpu = "500m", memory = "256Mi" }
            requests = { cpu = "50m", memory = "128Mi" }
          }

          liveness_probe {
            http_get {
              path = "/healthz"
              port = 8080
            }
          }
        }
      }
    }
  }
}

locals {
  labels_%[1]s = {
    "app.kubernetes.io/name"       = %[1]q
    "app.kubernetes.io/managed-by" = "terraform"
  }
}
`, name, image)
}

func cronJob(name, image string) string {
	return fmt.Sprintf(`resource "kubernetes_cron_job_v1" %[1]q {
  metadata {
    name = %[1]q
  }

  spec {
    schedule = "17 3 * * *"

    job_template {
      metadata {}

      spec {
        template {
          metadata {}

          spec {
            container {
              name    = %[1]q
              image   = %[2]s
              command = ["/bin/sh", "-c", "exec cleanup --older-than 30d"]
            }
          }
        }
      }
    }
  }
}
`, name, image)
}

const dynamic = `resource "kubernetes_deployment" "api" {
  metadata {
    name = "api"
  }

  spec {
    template {
      metadata {}

      spec {
        dynamic "container" {
          for_each = local.containers

          content {
            name  = container.value.name
            image = container.value.image
          }
        }
      }
    }
  }
}
`

const workloadModule = `resource "kubernetes_deployment" "this" {
  metadata {
    name = var.name
  }

  spec {
    template {
      metadata {}

      spec {
        container {
          name  = var.name
          image = var.image
        }
      }
    }
  }
}
`

const workloadVariables = `variable "name" {
  type = string
}

variable "image" {
  type = string
}
`

const versions = `terraform {
  required_version = ">= 1.6"

  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 2.30"
    }
  }
}
`

// filler is what most files of infrastructure are: no images.
func filler(service, n int) string {
	var b strings.Builder
	for k := range 7 {
		fmt.Fprintf(&b, `resource "aws_security_group" "s%[1]d_%[2]d_%[3]d" {
  name        = "service-%[1]d-%[2]d-%[3]d"
  description = "Allows what service %[1]d needs, and no more"
  vpc_id      = data.aws_vpc.main.id

  ingress {
    description = "HTTPS from the load balancer"
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["10.%[2]d.0.0/16", "10.%[3]d.0.0/16"]
  }

  tags = merge(var.tags, {
    Name = "service-%[1]d"
    Part = "%[2]d"
  })
}

`, service, n, k)
	}
	return b.String()
}
