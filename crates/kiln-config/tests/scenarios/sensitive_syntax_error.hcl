stack "shop" {}

variable "a" {
  sensitive = true
  default   = "hunter2" "x"
}
#: expect
# error[syntax]: found `"`, expected a new line or the end of the file
#  --> stack.hcl:5:25
#   |
# 5 |   default   = (sensitive) (sensitive)
#   |                           ^^^^^^^^^^^
#   = help: each attribute or block stands on a line of its own
