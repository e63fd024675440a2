stack "shop" {}

image "web" {
  from       = "docker.io/library/nginx:1"
  dockerfile = "./web"
}
#: expect
# error[wrong-value]: image "web" has both `from` and `dockerfile`
#  --> stack.hcl:4:16
#   |
# 4 |   from       = "docker.io/library/nginx:1"
#   |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^
#   = help: a Dockerfile says itself what it starts from; `contexts` gives it bases and images
