stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  helth {
    http = "/"
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-block]: `service` has no block `helth`
#   --> stack.hcl:10:3
#    |
# 10 |   helth {
#    |   ^^^^^
#    = help: did you mean `health`?
