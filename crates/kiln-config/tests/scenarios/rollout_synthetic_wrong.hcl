stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "empty" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate = { worse_by = 0.01 }
      synthetic {}
    }
  }

  port "http" {
    number = 8080
  }
}

service "unsafe" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate = { worse_by = 0.01 }
      synthetic {
        path   = "/orders"
        rate   = 20
        method = "POST"
      }
    }
  }

  port "http" {
    number = 8080
  }
}

service "fast" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate = { worse_by = 0.01 }
      synthetic {
        path = "orders"
        rate = 5000
      }
    }
  }

  port "http" {
    number = 8080
  }
}

service "count" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate = { worse_by = 0.01 }
      synthetic {
        path  = "/"
        rate  = 5
        count = 0
        host  = "a b"
      }
    }
  }

  port "http" {
    number = 8080
  }
}

service "port" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate = { worse_by = 0.01 }
      synthetic {
        path = "/"
        rate = 5
        port = "htp"
      }
    }
  }

  port "http" {
    number = 8080
  }
}

service "outside" {
  image = image.web
  rollout "canary" {
    analysis {
      metric "queue" {
        prometheus = "http://127.0.0.1:9090"
        query      = "sum(queue_length)"
        success    = "result < 100"
      }
      synthetic {
        path = "/"
        rate = 5
      }
    }
  }

  port "http" {
    number = 8080
  }
}

service "never" {
  image = image.web
  rollout "canary" {
    step { shift = "10%" }
    step { hold = "1m" }
    analysis {
      error_rate = { worse_by = 0.01 }
      synthetic {
        path = "/"
        rate = 5
      }
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[missing-attribute]: `synthetic` says its `path`
#   --> stack.hcl:13:7
#    |
# 13 |       synthetic {}
#    |       ^^^^^^^^^
#    = help: as in `synthetic { path = "/search?q=kiln"  rate = 20 }`
#
# error[missing-attribute]: `synthetic` says its `rate`
#   --> stack.hcl:13:7
#    |
# 13 |       synthetic {}
#    |       ^^^^^^^^^
#    = help: as in `synthetic { path = "/search?q=kiln"  rate = 20 }`
#
# error[wrong-type]: `method` of service "unsafe": "POST" may change something, and nobody asked for it; there are "GET" and "HEAD"
#   --> stack.hcl:30:18
#    |
# 30 |         method = "POST"
#    |                  ^^^^^^
#
# error[wrong-type]: `path` of service "fast": "orders" is no path like "/healthz"
#   --> stack.hcl:46:16
#    |
# 46 |         path = "orders"
#    |                ^^^^^^^^
#
# error[wrong-type]: `rate` of service "fast": expected a whole number from 1 to 200, found 5000
#   --> stack.hcl:47:16
#    |
# 47 |         rate = 5000
#    |                ^^^^
#
# error[wrong-type]: `count` of service "count": expected a whole number from 1 to 1000000, found 0
#   --> stack.hcl:65:17
#    |
# 65 |         count = 0
#    |                 ^
#
# error[wrong-type]: `host` of service "count": expected a host such as "shop.example"
#   --> stack.hcl:66:17
#    |
# 66 |         host  = "a b"
#    |                 ^^^^^
#
# error[no-port]: port has no port "htp"
#   --> stack.hcl:84:16
#    |
# 84 |         port = "htp"
#    |                ^^^^^
#    = help: did you mean `http`?
#
# error[wrong-value]: what others measure needs no requests of Kiln's
#    --> stack.hcl:103:7
#     |
# 103 |       synthetic {
#     |       ^^^^^^^^^
#     = help: leave `synthetic` out, or compare something, as in `error_rate = { worse_by = 0.01 }`
#
# error[wrong-value]: synthetic requests are sent while a step analyses, and none does
#    --> stack.hcl:122:7
#     |
# 122 |       synthetic {
#     |       ^^^^^^^^^
#     = help: write `step { analyse = "10m" }` after a `shift`, or leave `synthetic` out
