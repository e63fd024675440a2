stack "shop" {}

image "web" {
  from = "docker.io/library/nginx:1"
}

image "slip" {
  from = "scrach"
}

image "words" {
  from = "localhost:5000/a b"
}
#: expect
# error[wrong-value]: `from` of image "slip": "scrach" does not say which registry has it
#  --> stack.hcl:8:10
#   |
# 8 |   from = "scrach"
#   |          ^^^^^^^^
#   = help: start from `base.debian.NAME`, `image.NAME`, "scratch", or an image of a registry, as "docker.io/library/debian:12"
#
# error[wrong-value]: `from` of image "words": "localhost:5000/a b" names no image in a registry
#   --> stack.hcl:12:10
#    |
# 12 |   from = "localhost:5000/a b"
#    |          ^^^^^^^^^^^^^^^^^^^^
#    = help: start from `base.debian.NAME`, `image.NAME`, "scratch", or an image of a registry, as "docker.io/library/debian:12"
