stack "shop" {}

base "alpine" "x" {
  suite = "3"
}

base "debian" "y" {
  suite    = "book worm"
  variant  = "tiny"
  packages = ["../x", "ok"]
}

image "web" {
  from    = "scratch"
  command = []
  expose  = [0, "x"]
  user    = "a:b:c"
  volumes = ["data"]
  copy {
    from = "x"
    to   = "relative"
    mode = "rwx"
  }
  run {
    command = "make"
  }
  test "none" {}
  test "two" {
    tcp {}
    exec {
      command = ["x"]
    }
  }
}
#: expect
# error[wrong-value]: there is no kind of base `alpine`
#  --> stack.hcl:3:6
#   |
# 3 | base "alpine" "x" {
#   |      ^^^^^^^^
#   = help: the kind is "debian"
#
# error[wrong-type]: `suite` of base "y": "book worm" is no name of a suite
#  --> stack.hcl:8:14
#   |
# 8 |   suite    = "book worm"
#   |              ^^^^^^^^^^^
#
# error[wrong-type]: `variant` of base "y": there is no variant "tiny"; there are "essential" and "minbase"
#  --> stack.hcl:9:14
#   |
# 9 |   variant  = "tiny"
#   |              ^^^^^^
#
# error[wrong-value]: `packages` of base "y": "../x" is no name of a package
#   --> stack.hcl:10:14
#    |
# 10 |   packages = ["../x", "ok"]
#    |              ^^^^^^^^^^^^^^
#
# error[wrong-value]: `command` of image "web": it names no program
#   --> stack.hcl:15:13
#    |
# 15 |   command = []
#    |             ^^
#
# error[wrong-value]: `expose` of image "web": expected a port such as 8080 or "53/udp"
#   --> stack.hcl:16:13
#    |
# 16 |   expose  = [0, "x"]
#    |             ^^^^^^^^
#
# error[wrong-value]: `user` of image "web": "a:b:c" is no user like "www-data" or "1000:1000"
#   --> stack.hcl:17:13
#    |
# 17 |   user    = "a:b:c"
#    |             ^^^^^^^
#
# error[wrong-value]: `volumes` of image "web": "data" is not absolute; begin it with `/`
#   --> stack.hcl:18:13
#    |
# 18 |   volumes = ["data"]
#    |             ^^^^^^^^
#
# error[wrong-type]: `to` of image "web": "relative" is not absolute; begin it with `/`
#   --> stack.hcl:21:12
#    |
# 21 |     to   = "relative"
#    |            ^^^^^^^^^^
#
# error[wrong-type]: `mode` of image "web": "rwx" is no mode like "0644"
#   --> stack.hcl:22:12
#    |
# 22 |     mode = "rwx"
#    |            ^^^^^
#
# error[wrong-type]: `command` of image "web": expected a list(string), found a string
#   --> stack.hcl:25:15
#    |
# 25 |     command = "make"
#    |               ^^^^^^
#    = help: write a list, as in `["program", "argument"]`; for a shell: `["/bin/sh", "-c", "…"]`
#
# error[missing-block]: test "none" asks nothing
#   --> stack.hcl:27:3
#    |
# 27 |   test "none" {}
#    |   ^^^^^^^^^^^
#    = help: give it one block `http { … }`, `tcp { … }` or `exec { … }`, or what is to be seen without a boot: `file`, `package`, `no_root`, `no_setuid`
#
# error[missing-block]: test "two" asks 2 things at once
#   --> stack.hcl:28:3
#    |
# 28 |   test "two" {
#    |   ^^^^^^^^^^
#    = help: give it one block `http { … }`, `tcp { … }` or `exec { … }`, or what is to be seen without a boot: `file`, `package`, `no_root`, `no_setuid`
