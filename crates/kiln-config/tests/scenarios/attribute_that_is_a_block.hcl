stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  resources = { memory = "1GiB" }

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-attribute]: `service` has no attribute `resources`
#   --> stack.hcl:10:3
#    |
# 10 |   resources = { memory = "1GiB" }
#    |   ^^^^^^^^^
#    = help: write `resources { … }`
