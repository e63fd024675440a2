stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

job "d" {
  image    = image.web
  replicas = 2

  port "http" {
    number = 1
  }
}
#: expect
# error[unknown-attribute]: `job` has no attribute `replicas`
#   --> stack.hcl:10:3
#    |
# 10 |   replicas = 2
#    |   ^^^^^^^^
#    = help: a job runs once to its end; a `service` or `worker` goes on
#
# error[unknown-block]: `job` has no block `port`
#   --> stack.hcl:12:3
#    |
# 12 |   port "http" {
#    |   ^^^^
#    = help: a job runs once to its end; a `service` or `worker` goes on
