# Two services that call each other: `web` is the page, `orders` is the data behind it.
stack "shop" {}

variable "replicas" {
  type        = number
  default     = 2
  scope       = "environment"
  description = "How many copies of the page run; decided per environment, so it stays out of the release."
}

config "shop" {
  greeting = "Welcome to the shop"
}

# python3-minimal alone has no http.server and no json: they are in the standard library's own package.
base "debian" "python" {
  suite    = "bookworm"
  packages = ["libpython3-stdlib", "python3-minimal"]
}

image "orders" {
  from    = base.debian.python
  command = ["python3", "/app/server.py"]
  user    = "nobody"

  copy {
    from = "./orders"
    to   = "/app"
  }

  test "answers" {
    http {
      port   = 8000
      path   = "/healthz"
      status = 200
      within = "10s"
    }
  }
}

image "web" {
  from    = base.debian.python
  command = ["python3", "/app/server.py"]
  user    = "www-data"

  copy {
    from = "./web"
    to   = "/app"
  }

  # The image boots and answers before it can be released.
  test "answers" {
    http {
      port   = 8080
      path   = "/healthz"
      status = 200
      within = "10s"
    }
  }
}

service "orders" {
  image    = image.orders
  replicas = 2

  port "http" {
    number = 8000
  }

  health {
    http     = "/healthz"
    interval = "1s"
  }

  resources {
    memory = "64MiB"
    cpu    = 0.5
  }

  # One copy at a time, and never fewer than declared.
  rollout "rolling" {
    max_surge       = 1
    max_unavailable = 0
  }
}

service "web" {
  image    = image.web
  replicas = var.replicas

  env = {
    GREETING = config.shop.greeting
    ORDERS   = service.orders.url # a name, never an address: moving orders changes nothing here
  }

  port "http" {
    number = 8080
  }

  health {
    http     = "/healthz"
    interval = "1s"
  }

  resources {
    memory = "64MiB"
    cpu    = 0.5
  }

  # All new copies beside the old ones, one switch, and the old ones stay warm: `kiln rollback` is another switch.
  rollout "blue_green" {
    warm_for = "5m"
  }
}

# http://localhost:8080/
route "public" {
  listen = "127.0.0.1:8080"
  to     = service.web.http
}

environment "prod" {
  variables = { replicas = 4 }
}
