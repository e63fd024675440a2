stack "shop" {}

image "web" {
  from    = "scratch"
  command = "/web --port 1"
}

#: expect
# error[wrong-type]: `command` of image "web": expected a list(string), found a string
#  --> stack.hcl:5:13
#   |
# 5 |   command = "/web --port 1"
#   |             ^^^^^^^^^^^^^^^
#   = help: write a list, as in `["program", "argument"]`; for a shell: `["/bin/sh", "-c", "…"]`
