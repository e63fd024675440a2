stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  stop {
    grace = "1s"
  }
  stop {
    grace = "2s"
  }
  port "http" {
    number = 1
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[duplicate]: `stop` can stand in `service` once only
#   --> stack.hcl:13:3
#    |
# 13 |   stop {
#    |   ^^^^ again here
#   ::: stack.hcl:10:3
#    |
# 10 |   stop {
#    |   ---- first here
#
# error[duplicate]: `port "http"` is declared twice
#   --> stack.hcl:20:3
#    |
# 20 |   port "http" {
#    |   ^^^^^^^^^^^ again here
#   ::: stack.hcl:16:3
#    |
# 16 |   port "http" {
#    |   ----------- first here
