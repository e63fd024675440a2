stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

variable "password" {
  default   = "hunter2"
  sensitive = true
}

locals {
  dsn = "postgres://app:${var.password}@db"
}

service "web" {
  image = image.web
  env = {
    OK  = "x"
    DSN = local.dsn
  }
  command = ["/web", var.password]

  port "http" {
    number = 8080
  }
}
#: expect
# error[sensitive-value]: `env` of service "web" would store a sensitive value in clear
#   --> stack.hcl:21:11
#    |
# 21 |     DSN = local.dsn
#    |           ^^^^^^^^^ this is sensitive
#   ::: stack.hcl:14:9
#    |
# 14 |   dsn = "postgres://app:${var.password}@db"
#    |         ----------------------------------- the value comes from here
#    = help: declare a `secret`, and let the service read it from a file: `secrets = { "/run/secrets/NAME" = secret.NAME }`
#
# error[sensitive-value]: `command` of service "web" would store a sensitive value in clear
#   --> stack.hcl:23:13
#    |
# 23 |   command = ["/web", var.password]
#    |             ^^^^^^^^^^^^^^^^^^^^^^ this is sensitive
#    = help: declare a `secret`, and let the service read it from a file: `secrets = { "/run/secrets/NAME" = secret.NAME }`
