stack "shop" {}

image "web" {
  from = "scratch"

  test "nothing" {}

  test "wrong" {
    no_root = "yes"

    file {
      path   = "bin/sh"
      mode   = "rwx"
      absent = true
    }

    file {
      path   = "/a"
      owner  = "root"
      absent = true
    }

    file {}

    package {
      version = "1"
    }

    pakage {}
  }
}
#: expect
# error[missing-block]: test "nothing" asks nothing
#  --> stack.hcl:6:3
#   |
# 6 |   test "nothing" {}
#   |   ^^^^^^^^^^^^^^
#   = help: give it one block `http { … }`, `tcp { … }` or `exec { … }`, or what is to be seen without a boot: `file`, `package`, `no_root`, `no_setuid`
#
# error[wrong-type]: `no_root` of image "web": expected a bool, found a string
#  --> stack.hcl:9:15
#   |
# 9 |     no_root = "yes"
#   |               ^^^^^
#
# error[wrong-type]: `path` of image "web": "bin/sh" is not absolute; begin it with `/`
#   --> stack.hcl:12:16
#    |
# 12 |       path   = "bin/sh"
#    |                ^^^^^^^^
#
# error[wrong-type]: `mode` of image "web": "rwx" is no mode like "0644"
#   --> stack.hcl:13:16
#    |
# 13 |       mode   = "rwx"
#    |                ^^^^^
#
# error[wrong-value]: what is absent has no `mode`
#   --> stack.hcl:13:16
#    |
# 13 |       mode   = "rwx"
#    |                ^^^^^
#    = help: leave out one of the two
#
# error[wrong-value]: what is absent has no `owner`
#   --> stack.hcl:19:16
#    |
# 19 |       owner  = "root"
#    |                ^^^^^^
#    = help: leave out one of the two
#
# error[missing-attribute]: `file` needs the attribute `path`
#   --> stack.hcl:23:5
#    |
# 23 |     file {}
#    |     ^^^^
#    = help: path = … (absolute path): Where. The image's links are followed.
#
# error[missing-attribute]: `package` needs the attribute `name`
#   --> stack.hcl:25:5
#    |
# 25 |     package {
#    |     ^^^^^^^
#    = help: name = … (string): Its name there, such as `openssl`, or `group:artifact` for Java.
#
# error[unknown-block]: `test` has no block `pakage`
#   --> stack.hcl:29:5
#    |
# 29 |     pakage {}
#    |     ^^^^^^
#    = help: did you mean `package`?
