stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  rollout "blue_green" {
    step {
      check {
        http { path = "/early" }
      }
    }
    step { create = true }
    step {
      check {
        http { path = "/early" }
      }
    }
    step { wait = "healthy" }
    step {
      check {
        exec = ["/web"]
        http { path = "/ready" }
      }
    }
    step {
      check {
        http {}
      }
    }
    step {
      check {
        http {
          path = "/ready"
          url  = "http://127.0.0.1/"
        }
      }
    }
    step {
      check {
        http { path = "ready" }
      }
    }
    step {
      check {
        http {
          path = "/ready"
          port = "htp"
        }
      }
    }
    step {
      check {
        http {
          url  = "http://ann:secret@shop.example/"
          port = "http"
        }
      }
    }
    step {
      check {
        http {
          url      = "http://shop.example/"
          method   = "get"
          status   = 99
          contains = ""
        }
      }
    }
    step {
      check {
        http {
          path     = "/ready"
          method   = "HEAD"
          contains = "ready"
        }
        interval = "1s"
      }
    }
    step {
      check {
        http { path = "/ready" }
        attempts = 0
        timeout  = "0s"
      }
    }
    step {
      check {
        http { path = "/ready" }
        attempts = 1000
        interval = "1d"
      }
    }
  }

  port "http" {
    number = 8080
  }
}

service "two" {
  image = image.web
  rollout "blue_green" {
    step {
      check {
        http { path = "/ready" }
      }
    }
  }

  port "one" {
    number = 8080
  }
  port "other" {
    number = 8081
  }
}

worker "mail" {
  image = image.web
  rollout "stop_then_start" {
    step { create = true }
    step { wait = "healthy" }
    step {
      check {
        http { path = "/ready" }
      }
    }
  }
}
#: expect
# error[wrong-value]: no new instance is healthy here, and a `path` asks those
#   --> stack.hcl:13:23
#    |
# 13 |         http { path = "/early" }
#    |                       ^^^^^^^^
#    = help: put it after `step { wait = "healthy" }`, or ask a `url`
#
# error[wrong-value]: no new instance is healthy here, and a `path` asks those
#   --> stack.hcl:19:23
#    |
# 19 |         http { path = "/early" }
#    |                       ^^^^^^^^
#    = help: put it after `step { wait = "healthy" }`, or ask a `url`
#
# error[wrong-value]: a `check` has either `exec` or `http`
#   --> stack.hcl:24:7
#    |
# 24 |       check {
#    |       ^^^^^
#    = help: as in `exec = ["/app/smoke"]`, or `http { path = "/ready" }`
#
# error[wrong-value]: `http` asks either a `url` or a `path`
#   --> stack.hcl:31:9
#    |
# 31 |         http {}
#    |         ^^^^
#    = help: as in `url = "https://shop.example/ready"`, or `path = "/ready"` for each new instance
#
# error[wrong-value]: `http` asks either a `url` or a `path`
#   --> stack.hcl:36:9
#    |
# 36 |         http {
#    |         ^^^^
#    = help: as in `url = "https://shop.example/ready"`, or `path = "/ready"` for each new instance
#
# error[wrong-type]: `path` of service "web": "ready" is no path like "/healthz"
#   --> stack.hcl:44:23
#    |
# 44 |         http { path = "ready" }
#    |                       ^^^^^^^
#
# error[no-port]: web has no port "htp"
#   --> stack.hcl:51:18
#    |
# 51 |           port = "htp"
#    |                  ^^^^^
#    = help: did you mean `http`?
#
# error[wrong-type]: `url` of service "web": a user and a password would be stored in clear
#   --> stack.hcl:58:18
#    |
# 58 |           url  = "http://ann:secret@shop.example/"
#    |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
#
# error[wrong-value]: `port` is one of the service's, for a `path`
#   --> stack.hcl:59:18
#    |
# 59 |           port = "http"
#    |                  ^^^^^^
#    = help: write it into the `url`
#
# error[wrong-type]: `method` of service "web": did you mean `GET`?
#   --> stack.hcl:67:22
#    |
# 67 |           method   = "get"
#    |                      ^^^^^
#
# error[wrong-type]: `status` of service "web": expected a whole number from 100 to 599, found 99
#   --> stack.hcl:68:22
#    |
# 68 |           status   = 99
#    |                      ^^
#
# error[wrong-type]: `contains` of service "web": every answer contains nothing
#   --> stack.hcl:69:22
#    |
# 69 |           contains = ""
#    |                      ^^
#
# error[wrong-value]: an answer to HEAD has no body
#   --> stack.hcl:78:22
#    |
# 78 |           contains = "ready"
#    |                      ^^^^^^^
#    = help: use "GET", or leave `contains` out
#
# error[wrong-value]: `interval` is between attempts, and there is one
#   --> stack.hcl:80:20
#    |
# 80 |         interval = "1s"
#    |                    ^^^^
#    = help: as in `attempts = 5`, or leave `interval` out
#
# error[wrong-type]: `attempts` of service "web": expected a whole number from 1 to 1000, found 0
#   --> stack.hcl:86:20
#    |
# 86 |         attempts = 0
#    |                    ^
#
# error[wrong-type]: `timeout` of service "web": it must be longer than nothing
#   --> stack.hcl:87:20
#    |
# 87 |         timeout  = "0s"
#    |                    ^^^^
#
# error[wrong-value]: all attempts together may take 86410000s, and 336h are the most
#   --> stack.hcl:93:20
#    |
# 93 |         attempts = 1000
#    |                    ^^^^
#    = help: try less often, or with less time between
#
# error[no-port]: it is not said which port of two is asked
#    --> stack.hcl:109:9
#     |
# 109 |         http { path = "/ready" }
#     |         ^^^^
#     = help: name a port `http`, or set `port = "NAME"`
#
# error[no-port]: mail has no port that could be asked
#    --> stack.hcl:129:9
#     |
# 129 |         http { path = "/ready" }
#     |         ^^^^
#     = help: declare a `port`, or ask a `url`
