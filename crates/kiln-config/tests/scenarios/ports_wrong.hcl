stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  port "a" {
    number = 0
  }
  port "b" {
    number = 8080
  }
  port "url" {
    number = 1
  }
  port "c d" {
    number = 2
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `number` of service "web": expected a whole number from 1 to 65535, found 0
#   --> stack.hcl:11:14
#    |
# 11 |     number = 0
#    |              ^
#
# error[invalid-name]: a port can't be named `url`: that is the service's address
#   --> stack.hcl:16:8
#    |
# 16 |   port "url" {
#    |        ^^^^^
#
# error[invalid-name]: `c d` is not a valid port name: use 1 to 40 letters, digits, `_` and `-`, beginning with a letter or `_`
#   --> stack.hcl:19:8
#    |
# 19 |   port "c d" {
#    |        ^^^^^
#
# error[duplicate]: two ports of service "web" have the number 8080
#   --> stack.hcl:23:3
#    |
# 23 |   port "http" {
#    |   ^^^^^^^^^^^
#   ::: stack.hcl:13:3
#    |
# 13 |   port "b" {
#    |   -------- the other one
