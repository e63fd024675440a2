stack "shop" {}

variable "a" {
  sensitive = true
  default   = { hunter2 = 1 }
}

volume "x" {
  for_each = var.a
}
#: expect
# error[sensitive-value]: `for_each` can't be sensitive: its keys become names
#  --> stack.hcl:9:14
#   |
# 9 |   for_each = var.a
#   |              ^^^^^
