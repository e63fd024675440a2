stack "shop" {}

image "web" {
  from       = "docker.io/library/nginx:1"
  dockerfile = "./web"
}
#: expect
# error[not-supported]: images from a registry ("docker.io/library/nginx:1") are not supported by this version
#  --> stack.hcl:4:16
#   |
# 4 |   from       = "docker.io/library/nginx:1"
#   |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^
#   = help: start from `base.debian.NAME`, `image.NAME` or "scratch"
#
# error[unknown-attribute]: `image` has no attribute `dockerfile`
#  --> stack.hcl:5:3
#   |
# 5 |   dockerfile = "./web"
#   |   ^^^^^^^^^^
#   = help: a Dockerfile is not supported by this version; use `copy` and `run`
