stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  health {
    http = "/"
  }
  port "a" {
    number = 1
  }
  port "b" {
    number = 2
  }
}
#: expect
# error[no-port]: `health` of service "web" does not say which port it asks
#   --> stack.hcl:10:3
#    |
# 10 |   health {
#    |   ^^^^^^
#    = help: name a port `http`, declare one port only, or set `port = "NAME"`
