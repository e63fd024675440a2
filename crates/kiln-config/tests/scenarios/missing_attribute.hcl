stack "shop" {}

service "web" {
  port "http" {}
}

base "debian" "slim" {}
#: expect
# error[missing-attribute]: `service` needs the attribute `image`
#  --> stack.hcl:3:1
#   |
# 3 | service "web" {
#   | ^^^^^^^^^^^^^
#   = help: image = … (image): What it boots: `image.NAME`. A changed image replaces the instances.
#
# error[missing-attribute]: `port` needs the attribute `number`
#  --> stack.hcl:4:3
#   |
# 4 |   port "http" {}
#   |   ^^^^^^^^^^^
#   = help: number = … (number): 1 to 65535.
#
# error[missing-attribute]: `base` needs the attribute `suite`
#  --> stack.hcl:7:1
#   |
# 7 | base "debian" "slim" {}
#   | ^^^^^^^^^^^^^^^^^^^^
#   = help: suite = … (string): The suite, such as `bookworm`.
