stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  scratch = { "/cache" = "64M" }
  health {
    http     = "/"
    interval = 5
    timeout  = "5 seconds"
    startup  = "0s"
  }
  resources {
    memory = "lots"
    cpu    = 0
    pids   = 1.5
  }
  stop {
    grace  = "-1s"
    signal = "SIGFOO"
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `scratch` of service "web": "64M" leaves open what it counts; write MiB or MB
#   --> stack.hcl:10:26
#    |
# 10 |   scratch = { "/cache" = "64M" }
#    |                          ^^^^^
#
# error[wrong-type]: `interval` of service "web": expected text like "5s", found a number
#   --> stack.hcl:13:16
#    |
# 13 |     interval = 5
#    |                ^
#
# error[wrong-type]: `timeout` of service "web": "5 seconds" is no duration like "5s", "1m30s" or "500ms"
#   --> stack.hcl:14:16
#    |
# 14 |     timeout  = "5 seconds"
#    |                ^^^^^^^^^^^
#
# error[wrong-type]: `startup` of service "web": it must be longer than nothing
#   --> stack.hcl:15:16
#    |
# 15 |     startup  = "0s"
#    |                ^^^^
#
# error[wrong-type]: `memory` of service "web": "lots" is no size like "128MiB", "1GiB" or "64KB"
#   --> stack.hcl:18:14
#    |
# 18 |     memory = "lots"
#    |              ^^^^^^
#
# error[wrong-type]: `cpu` of service "web": expected a number of cores from 0.001 to 4096, found 0
#   --> stack.hcl:19:14
#    |
# 19 |     cpu    = 0
#    |              ^
#
# error[wrong-type]: `pids` of service "web": expected a whole number from 1 to 4194304, found 1.5
#   --> stack.hcl:20:14
#    |
# 20 |     pids   = 1.5
#    |              ^^^
#
# error[wrong-type]: `grace` of service "web": "-1s" is negative
#   --> stack.hcl:23:14
#    |
# 23 |     grace  = "-1s"
#    |              ^^^^^
#
# error[wrong-type]: `signal` of service "web": "SIGFOO" is no signal to stop with; there are SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGRTMIN+3
#   --> stack.hcl:24:14
#    |
# 24 |     signal = "SIGFOO"
#    |              ^^^^^^^^
