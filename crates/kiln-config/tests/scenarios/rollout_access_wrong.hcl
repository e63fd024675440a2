stack "shop" {}

secret "token" {
  env = "PROMETHEUS_TOKEN"
}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  rollout "canary" {
    step {
      check {
        http {
          url      = "https://gate.example/shop"
          password = secret.token
        }
      }
    }
    step {
      check {
        http {
          url      = "https://gate.example/shop"
          user     = "a:b"
          password = secret.token
        }
      }
    }
    step { shift = "5%" }
    step { analyse = "10m" }

    analysis {
      metric "one" {
        prometheus = "https://prometheus.internal"
        query      = "sum(queue)"
        success    = "result < 5"
        bearer     = "abc"
      }
      metric "two" {
        prometheus = "https://prometheus.internal"
        query      = "sum(queue)"
        success    = "result < 5"
        bearer     = secret.token
        user       = "kiln"
        password   = secret.token
      }
      metric "three" {
        prometheus = "http://prometheus.internal"
        query      = "sum(queue)"
        success    = "result < 5"
        ca         = "-----BEGIN CERTIFICATE-----"
      }
      metric "four" {
        prometheus = "https://prometheus.internal"
        query      = "sum(queue)"
        success    = "result < 5"
        ca         = "/etc/ca.pem"
      }
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-value]: `password` goes with a `user`
#   --> stack.hcl:19:22
#    |
# 19 |           password = secret.token
#    |                      ^^^^^^^^^^^^
#    = help: set both, or neither
#
# error[wrong-type]: `user` of service "web": a user's name ends at the first `:`
#   --> stack.hcl:27:22
#    |
# 27 |           user     = "a:b"
#    |                      ^^^^^
#
# error[wrong-type]: `bearer` of service "web": expected `secret.NAME`, found a string
#   --> stack.hcl:40:22
#    |
# 40 |         bearer     = "abc"
#    |                      ^^^^^
#    = help: write the name without quotes: `secret.NAME`
#
# error[wrong-value]: one question goes with one kind of credentials
#   --> stack.hcl:46:22
#    |
# 46 |         bearer     = secret.token
#    |                      ^^^^^^^^^^^^
#    = help: leave out `bearer`, or `user` and `password`
#
# error[wrong-value]: nobody shows a certificate over plain HTTP
#   --> stack.hcl:54:22
#    |
# 54 |         ca         = "-----BEGIN CERTIFICATE-----"
#    |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
#    = help: ask an `https://` address
#
# error[wrong-type]: `ca` of service "web": it has no certificate between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`
#   --> stack.hcl:60:22
#    |
# 60 |         ca         = "/etc/ca.pem"
#    |                      ^^^^^^^^^^^^^
