# A stack is one folder of .hcl files. `kiln up` bakes its images, checks them, and moves an environment to them.
stack "STACK_NAME" {}

# How many copies run is decided per environment, so it stays out of the release.
variable "replicas" {
  type    = number
  default = 2
  scope   = "environment"
}

# A golden base image, from Debian's packages. `kiln lock` pins each to a version and a sha256 in kiln.lock.
base "debian" "slim" {
  suite    = "bookworm"
  packages = ["busybox"]
}

image "web" {
  from    = base.debian.slim
  command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/site"]
  user    = "www-data"

  copy {
    from = "./site"
    to   = "/site"
  }

  # The image boots and answers before it can be released.
  test "serves" {
    http {
      path   = "/"
      status = 200
      within = "10s"
    }
  }
}

service "web" {
  image    = image.web
  replicas = var.replicas

  port "http" {
    number = 8080
  }

  health {
    http     = "/"
    interval = "1s"
  }

  resources {
    memory = "64MiB"
  }

  # All new instances beside the old ones, then one switch. The old ones stay warm for a quick `kiln rollback`.
  rollout "blue_green" {}
}

# Where to look: http://localhost:8080/
route "public" {
  listen = "127.0.0.1:8080"
  to     = service.web.http
}

environment "prod" {
  variables = { replicas = 4 }
}
