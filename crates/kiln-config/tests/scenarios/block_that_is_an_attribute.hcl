stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  env {
    A = 1
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-block]: `service` has no block `env`
#   --> stack.hcl:10:3
#    |
# 10 |   env {
#    |   ^^^
#    = help: write `env = …`
