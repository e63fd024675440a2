stack "shop" {}

locals {
  a = file("motd.txt")
  b = templatefile("conf.tpl", {})
}
#: file conf.tpl=port = ${port}
#: expect
# error[wrong-arguments]: argument 1 of `file`: there is no file motd.txt in the stack folder
#  --> stack.hcl:4:12
#   |
# 4 |   a = file("motd.txt")
#   |            ^^^^^^^^^^
#   = help: call it as `file(path)`, for example `file("motd.txt")`
#
# error[template-variable]: in template conf.tpl: the template uses `port`, which it was not given
#  --> stack.hcl:5:7
#   |
# 5 |   b = templatefile("conf.tpl", {})
#   |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
