stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]

    analysis {
      within = "1m"

      metric "queue" {}
      metric "queue" {
        prometheus = "prometheus:9090"
        query      = ""
        success    = "len(result) == 0"
        failure    = "result > many"
        interval   = "10ms"
        count      = 0
      }
      metric "a b" {
        prometheus  = "http://user:password@prometheus"
        query       = "up"
        success     = "result == 1"
        error_limit = -1
      }
      metric "slow" {
        prometheus = "http://127.0.0.1:9090"
        query      = "up"
        success    = "result == 1"
        interval   = "30s"
        count      = 3
      }
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-value]: a `metric` has a `prometheus`
#   --> stack.hcl:16:7
#    |
# 16 |       metric "queue" {}
#    |       ^^^^^^^^^^^^^^
#    = help: as in `prometheus = "http://127.0.0.1:9090"`
#
# error[wrong-value]: a `metric` has a `query`
#   --> stack.hcl:16:7
#    |
# 16 |       metric "queue" {}
#    |       ^^^^^^^^^^^^^^
#    = help: as in `query = "sum(rate(errors[1m]))"`
#
# error[wrong-value]: a `metric` says what counts as a `success` or a `failure`
#   --> stack.hcl:16:7
#    |
# 16 |       metric "queue" {}
#    |       ^^^^^^^^^^^^^^
#    = help: as in `success = "result < 0.05"`
#
# error[duplicate]: `metric "queue"` is declared twice
#   --> stack.hcl:17:7
#    |
# 17 |       metric "queue" {
#    |       ^^^^^^^^^^^^^^ again here
#   ::: stack.hcl:16:7
#    |
# 16 |       metric "queue" {}
#    |       -------------- first here
#
# error[wrong-type]: `prometheus` of service "web": it begins with `http://` or `https://`
#   --> stack.hcl:18:22
#    |
# 18 |         prometheus = "prometheus:9090"
#    |                      ^^^^^^^^^^^^^^^^^
#
# error[wrong-type]: `query` of service "web": it must ask something
#   --> stack.hcl:19:22
#    |
# 19 |         query      = ""
#    |                      ^^
#
# error[wrong-type]: `success` of service "web": `len(result) == 0` is no comparison such as `result < 0.05`
#   --> stack.hcl:20:22
#    |
# 20 |         success    = "len(result) == 0"
#    |                      ^^^^^^^^^^^^^^^^^^
#
# error[wrong-type]: `failure` of service "web": `result > many` is no comparison such as `result < 0.05`
#   --> stack.hcl:21:22
#    |
# 21 |         failure    = "result > many"
#    |                      ^^^^^^^^^^^^^^^
#
# error[wrong-type]: `interval` of service "web": it must be at least a second
#   --> stack.hcl:22:22
#    |
# 22 |         interval   = "10ms"
#    |                      ^^^^^^
#
# error[wrong-type]: `count` of service "web": expected a whole number from 1 to 1000, found 0
#   --> stack.hcl:23:22
#    |
# 23 |         count      = 0
#    |                      ^
#
# error[wrong-value]: "a b" is no name of a metric
#   --> stack.hcl:25:14
#    |
# 25 |       metric "a b" {
#    |              ^^^^^
#    = help: 1 to 64 letters, digits, `_` and `-`
#
# error[wrong-type]: `prometheus` of service "web": a user and a password would be stored in clear
#   --> stack.hcl:26:23
#    |
# 26 |         prometheus  = "http://user:password@prometheus"
#    |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
#
# error[wrong-type]: `error_limit` of service "web": expected a whole number from 0 to 1000, found -1
#   --> stack.hcl:29:23
#    |
# 29 |         error_limit = -1
#    |                       ^^
#
# error[wrong-value]: "slow" takes 3 times 30s, and the analysis ends after 1m
#   --> stack.hcl:31:7
#    |
# 31 |       metric "slow" {
#    |       ^^^^^^^^^^^^^
#    = help: measure it less often, or let the analysis take longer
