stack "shop" {}

image "web" {
  from       = "docker.io/library/nginx:1"
  dockerfile = "./web"
}

image "leaves" {
  from = "oci:../bases/os:v1"
}

image "nothing" {
  from = "docker-archive:os.tar:v1"
}

image "good" {
  dockerfile = "./web"
  contexts   = { os = "oci:bases/./os:v1", tools = "docker-archive:/srv/tools.tar" }
}
#: expect
# error[wrong-value]: image "web" has both `from` and `dockerfile`
#  --> stack.hcl:4:16
#   |
# 4 |   from       = "docker.io/library/nginx:1"
#   |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^
#   = help: a Dockerfile says itself what it starts from; `contexts` gives it bases and images
#
# error[wrong-value]: `from` of image "leaves": "../bases/os" leaves the stack folder
#  --> stack.hcl:9:10
#   |
# 9 |   from = "oci:../bases/os:v1"
#   |          ^^^^^^^^^^^^^^^^^^^^
#   = help: write "oci:DIR:TAG" or "docker-archive:FILE:NAME:TAG"; the tag or the name may be left out where there is one image
#
# error[wrong-value]: `from` of image "nothing": "docker-archive:os.tar:v1" names no image
#   --> stack.hcl:13:10
#    |
# 13 |   from = "docker-archive:os.tar:v1"
#    |          ^^^^^^^^^^^^^^^^^^^^^^^^^^
#    = help: write "oci:DIR:TAG" or "docker-archive:FILE:NAME:TAG"; the tag or the name may be left out where there is one image
