stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  workdir = "app"
  user    = "a b"
  volumes = {
    "/data" = volume.data
    "/x"    = { volume = volume.data, readonly = true }
  }
  scratch = {
    "/data"  = "1MiB"
    "/a/../b" = "1MiB"
  }
  security {
    add_capabilities = ["ALL", "NET_ADMN"]
  }

  port "http" {
    number = 8080
  }
}

volume "data" {}
#: expect
# error[wrong-type]: `workdir` of service "web": "app" is not absolute; begin it with `/`
#   --> stack.hcl:10:13
#    |
# 10 |   workdir = "app"
#    |             ^^^^^
#
# error[wrong-value]: `user` of service "web": "a b" is no user like "www-data" or "1000:1000"
#   --> stack.hcl:11:13
#    |
# 11 |   user    = "a b"
#    |             ^^^^^
#
# error[wrong-type]: `volumes` of service "web": a volume takes `volume` and `read_only`, which is true or false
#   --> stack.hcl:14:15
#    |
# 14 |     "/x"    = { volume = volume.data, readonly = true }
#    |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
#
# error[duplicate]: /data of service "web" is in `volumes` and in `scratch`
#   --> stack.hcl:16:13
#    |
# 16 |   scratch = {
#    |             ^
#   ::: stack.hcl:12:13
#    |
# 12 |   volumes = {
#    |             - here too
#
# error[wrong-value]: `scratch` of service "web": "/a/../b" holds `.` or `..`
#   --> stack.hcl:18:17
#    |
# 18 |     "/a/../b" = "1MiB"
#    |                 ^^^^^^
#
# error[wrong-value]: adding all capabilities is not supported: name those that are needed
#   --> stack.hcl:21:24
#    |
# 21 |     add_capabilities = ["ALL", "NET_ADMN"]
#    |                        ^^^^^^^^^^^^^^^^^^^
#
# error[wrong-value]: there is no capability "NET_ADMN"
#   --> stack.hcl:21:24
#    |
# 21 |     add_capabilities = ["ALL", "NET_ADMN"]
#    |                        ^^^^^^^^^^^^^^^^^^^
#    = help: did you mean `NET_ADMIN`?
