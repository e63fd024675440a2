stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

secret "db" {
  file = "./secrets/../secrets/db"
}

service "web" {
  image = image.web
  secrets = {
    "/run/secrets/db" = secret.db
    "relative"        = secret.db
    "/run/x"          = "db"
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-value]: `secrets` of service "web": "relative" is not absolute; begin it with `/`
#   --> stack.hcl:16:25
#    |
# 16 |     "relative"        = secret.db
#    |                         ^^^^^^^^^
#
# error[wrong-type]: `secrets` of service "web": expected `secret.NAME`, found a string
#   --> stack.hcl:17:25
#    |
# 17 |     "/run/x"          = "db"
#    |                         ^^^^
#    = help: write the name without quotes: `secret.NAME`
