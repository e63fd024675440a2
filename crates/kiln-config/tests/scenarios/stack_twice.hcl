stack "a" {}
stack "b" {}
#: expect
# error[duplicate]: a folder is one stack, but `stack` stands twice
#  --> stack.hcl:2:7
#   |
# 2 | stack "b" {}
#   |       ^^^ again here
#  ::: stack.hcl:1:7
#   |
# 1 | stack "a" {}
#   |       --- first here
