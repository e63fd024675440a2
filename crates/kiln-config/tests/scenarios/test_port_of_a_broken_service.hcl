stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]

  test "serves" {
    http {
      path = "/"
    }
  }
}

service "web" {
  image = image.wbe

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-name]: there is no `image.wbe`
#   --> stack.hcl:15:17
#    |
# 15 |   image = image.wbe
#    |                 ^^^
#    = help: did you mean `web`?
