stack "shop" {}

service {
  image = 1
}

locals "x" {}

base "slim" {
  suite = "bookworm"
}
#: expect
# error[wrong-labels]: `service` takes one label, the name
#  --> stack.hcl:3:1
#   |
# 3 | service {
#   | ^^^^^^^
#   = help: write `service "NAME" { … }`
#
# error[wrong-labels]: `locals` takes no label
#  --> stack.hcl:7:8
#   |
# 7 | locals "x" {}
#   |        ^^^
#   = help: write `locals { … }`
#
# error[wrong-labels]: `base` takes 2 labels: kind and name
#  --> stack.hcl:9:1
#   |
# 9 | base "slim" {
#   | ^^^^^^^^^^^
#   = help: write `base "KIND" "NAME" { … }`
