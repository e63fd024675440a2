stack "shop" {}

locals {
  a = file("../../etc/passwd")
  b = file("/etc/passwd")
  c = fileset("..", "*")
}

image "web" {
  from = "scratch"
  copy {
    from = "../secret"
    to   = "/x"
  }
}

secret "s" {
  file = "../s"
}
#: expect
# error[wrong-arguments]: argument 1 of `file`: "../../etc/passwd" leaves the stack folder; paths are relative to it
#  --> stack.hcl:4:12
#   |
# 4 |   a = file("../../etc/passwd")
#   |            ^^^^^^^^^^^^^^^^^^
#   = help: call it as `file(path)`, for example `file("motd.txt")`
#
# error[wrong-arguments]: argument 1 of `file`: "/etc/passwd" leaves the stack folder; paths are relative to it
#  --> stack.hcl:5:12
#   |
# 5 |   b = file("/etc/passwd")
#   |            ^^^^^^^^^^^^^
#   = help: call it as `file(path)`, for example `file("motd.txt")`
#
# error[wrong-arguments]: argument 1 of `fileset`: ".." leaves the stack folder; paths are relative to it
#  --> stack.hcl:6:15
#   |
# 6 |   c = fileset("..", "*")
#   |               ^^^^
#   = help: call it as `fileset(folder, glob)`, for example `fileset(".", "*.txt")`
#
# error[path-escapes]: "../secret" leaves the stack folder
#   --> stack.hcl:12:12
#    |
# 12 |     from = "../secret"
#    |            ^^^^^^^^^^^
#    = help: only files of the stack folder can be copied: they are what is reviewed and hashed
#
# error[path-escapes]: "../s" leaves the stack folder
#   --> stack.hcl:18:10
#    |
# 18 |   file = "../s"
#    |          ^^^^^^
#    = help: a secret outside of it has an absolute path
