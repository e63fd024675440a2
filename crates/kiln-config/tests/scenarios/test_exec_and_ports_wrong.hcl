stack "shop" {}

image "web" {
  from = "scratch"

  test "booted" {
    closed_ports = [8080, 70000, "ssh"]

    tcp {
      port = 8080
    }
  }

  test "seen" {
    no_root      = true
    closed_ports = [22]
  }

  test "printed" {
    exec {
      command = ["/web"]
      exit    = 256
      matches = ["^a", "(b"]
    }
  }
}
#: expect
# error[wrong-value]: `closed_ports` of image "web": 70000 is no port
#  --> stack.hcl:7:20
#   |
# 7 |     closed_ports = [8080, 70000, "ssh"]
#   |                    ^^^^^^^^^^^^^^^^^^^^
#   = help: a port is 1 to 65535
#
# error[wrong-value]: `closed_ports` of image "web": ssh is no port
#  --> stack.hcl:7:20
#   |
# 7 |     closed_ports = [8080, 70000, "ssh"]
#   |                    ^^^^^^^^^^^^^^^^^^^^
#   = help: a port is 1 to 65535
#
# error[wrong-value]: port 8080 of image "web" must answer and be closed at once
#  --> stack.hcl:7:20
#   |
# 7 |     closed_ports = [8080, 70000, "ssh"]
#   |                    ^^^^^^^^^^^^^^^^^^^^
#   = help: leave it out of `closed_ports`
#
# error[wrong-value]: `closed_ports` of image "web" says nothing of an image that is not booted
#   --> stack.hcl:16:20
#    |
# 16 |     closed_ports = [22]
#    |                    ^^^^
#    = help: add `http { … }`, `tcp { … }` or `exec { … }`: the ports are looked at once that holds
#
# error[wrong-type]: `exit` of image "web": expected a whole number from 0 to 255, found 256
#   --> stack.hcl:22:17
#    |
# 22 |       exit    = 256
#    |                 ^^^
#
# error[wrong-value]: `matches` of image "web": the pattern is not valid: unclosed group
#   --> stack.hcl:23:17
#    |
# 23 |       matches = ["^a", "(b"]
#    |                 ^^^^^^^^^^^^
