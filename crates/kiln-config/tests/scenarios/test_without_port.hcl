stack "shop" {}

image "web" {
  from = "scratch"
  test "a" {
    http {}
  }
}

image "two" {
  from = "scratch"
  test "a" {
    tcp {}
  }
}

image "decided" {
  from = "scratch"
  test "a" {
    tcp {}
  }
}

variable "port" {
  default = 1
  scope   = "environment"
}

service "x" {
  image = image.two
  port "http" {
    number = 1
  }
}

service "y" {
  image = image.two
  port "http" {
    number = 2
  }
}

service "z" {
  image = image.decided
  port "http" {
    number = var.port
  }
}
#: expect
# error[no-port]: the test does not say which port it asks, and no service that uses the image has one
#  --> stack.hcl:5:3
#   |
# 5 |   test "a" {
#   |   ^^^^^^^^
#   = help: set `port`, or `expose` one port in the image
#
# error[no-port]: the test does not say which port it asks, and services that use the image listen on different ones
#   --> stack.hcl:12:3
#    |
# 12 |   test "a" {
#    |   ^^^^^^^^
#   ::: stack.hcl:31:3
#    |
# 31 |   port "http" {
#    |   ----------- one
#   ::: stack.hcl:38:3
#    |
# 38 |   port "http" {
#    |   ----------- another
#    = help: set `port`, or `expose` one port in the image
#
# error[no-port]: the test does not say which port it asks, and an environment decides which one the service has
#   --> stack.hcl:19:3
#    |
# 19 |   test "a" {
#    |   ^^^^^^^^
#   ::: stack.hcl:45:3
#    |
# 45 |   port "http" {
#    |   ----------- decided here
#    = help: set `port`, or `expose` one port in the image
