stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web
  health {}

  port "http" {
    number = 8080
  }
}
service "b" {
  image = image.web
  health {
    http = "/"
    tcp  = true
  }

  port "http" {
    number = 8080
  }
}
service "c" {
  image = image.web
  health {
    command = ["/x"]
    status  = 200
  }

  port "http" {
    number = 8080
  }
}
service "d" {
  image = image.web
  health {
    http = "healthz"
    port = "htp"
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[missing-attribute]: `health` of service "a" asks nothing
#   --> stack.hcl:10:3
#    |
# 10 |   health {}
#    |   ^^^^^^
#    = help: set one of `http = "/path"`, `tcp = true` and `command = […]`
#
# error[missing-attribute]: `health` of service "b" asks several things at once
#   --> stack.hcl:18:3
#    |
# 18 |   health {
#    |   ^^^^^^
#    = help: set one of `http = "/path"`, `tcp = true` and `command = […]`
#
# error[wrong-value]: `status` means nothing for this kind of probe
#   --> stack.hcl:31:15
#    |
# 31 |     status  = 200
#    |               ^^^
#
# error[wrong-type]: `http` of service "d": "healthz" is no path like "/healthz"
#   --> stack.hcl:41:12
#    |
# 41 |     http = "healthz"
#    |            ^^^^^^^^^
#
# error[no-port]: service "d" has no port "htp"
#   --> stack.hcl:42:12
#    |
# 42 |     port = "htp"
#    |            ^^^^^
#    = help: did you mean `http`?
