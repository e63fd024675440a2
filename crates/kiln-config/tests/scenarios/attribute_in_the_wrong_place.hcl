stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  memory = "1GiB"
  count  = 3

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-attribute]: `service` has no attribute `memory`
#   --> stack.hcl:10:3
#    |
# 10 |   memory = "1GiB"
#    |   ^^^^^^
#    = help: `memory` stands in the block `resources`
#
# error[unknown-attribute]: `service` has no attribute `count`
#   --> stack.hcl:11:3
#    |
# 11 |   count  = 3
#    |   ^^^^^
#    = help: there is no `count`: a shifted index would replace everything; use `replicas` or `for_each`
