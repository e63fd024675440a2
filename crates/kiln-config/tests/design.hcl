stack "shop" {}

variable "replicas" {
  type    = number
  default = 2
  scope   = "environment"
}

config "shop" {
  greeting = "Hello"
}

secret "db_password" {
  file = "secrets/db"
}

base "debian" "slim" {                 # a golden base image, from locked packages
  suite    = "bookworm"
  packages = ["ca-certificates", "python3-minimal"]
}

image "web" {
  from    = base.debian.slim           # or "registry/name:tag" (locked to a digest), or dockerfile = "./web"
  command = ["python3", "/app/server.py"]
  user    = "www-data"

  copy {
    from = "./web"
    to   = "/app"
  }

  run {
    command = ["python3", "-m", "compileall", "/app"]
  }

  test "starts" {                      # the image boots and answers before it can be released
    http {
      path   = "/healthz"
      status = 200
      within = "5s"
    }
  }
}

service "web" {
  image    = image.web
  replicas = var.replicas
  env      = { GREETING = config.shop.greeting, ORDERS = service.orders.url }
  secrets  = { "/run/secrets/db" = secret.db_password }

  port "http" {
    number = 8080
  }

  health {
    http     = "/healthz"
    interval = "1s"
  }

  resources {
    memory = "128MiB"
    cpu    = 0.5
  }

  rollout "blue_green" {
    warm_for = "10m"
  }
}

service "orders" {
  image = image.web

  port "http" {
    number = 8080
  }
}

route "public" {
  listen = ":8080"
  host   = "shop.localhost"
  to     = service.web.http
}

environment "prod" {
  variables = { replicas = 6 }
}
