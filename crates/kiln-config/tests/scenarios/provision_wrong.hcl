stack "shop" {}

variable "password" {
  default   = "secret"
  sensitive = true
}

variable "size" {
  default = "small"
  scope   = "environment"
}

base "debian" "ansible-trixie" {
  suite = "trixie"
}

image "kinds" {
  from = "scratch"
  provision "puppet" {
    playbook = "a.yml"
  }
  provision {
    playbook = "a.yml"
  }
  provision "ansible" {}
}

image "paths" {
  from = base.debian.ansible-trixie
  provision "ansible" {
    playbook = "../site.yml"
  }
  provision "ansible" {
    playbook = "/etc/site.yml"
  }
  provision "ansible" {
    playbook = "*.yml"
  }
  provision "ansible" {
    playbook = "taken.yml"
  }
}

image "absent" {
  from = base.debian.ansible-trixie
  provision "ansible" {
    playbook = "./play/absent.yml"
  }
}

image "words" {
  from = "scratch"
  provision "ansible" {
    playbook = "a.yml"
    suite    = "bookworm"
    vars     = { "a-b" = 1 }
    tags     = ["a,b"]
    groups   = ["all", "web-servers"]
  }
}

image "secrets" {
  from = "docker.io/library/debian:12"
  provision "ansible" {
    playbook = "a.yml"
    vars     = { password = var.password }
  }
  provision "ansible" {
    playbook = "a.yml"
    suite    = "bookworm"
    vars     = { size = var.size }
  }
}
#: file a.yml=- hosts: all
#: file taken.yml=- hosts: all
#: expect
# error[wrong-value]: there is no kind of provision `puppet`
#   --> stack.hcl:19:13
#    |
# 19 |   provision "puppet" {
#    |             ^^^^^^^^
#    = help: the kind is "ansible"
#
# error[wrong-labels]: `provision` takes one label, the kind
#   --> stack.hcl:22:3
#    |
# 22 |   provision {
#    |   ^^^^^^^^^
#    = help: write `provision "KIND" { … }`
#
# error[missing-attribute]: `provision` needs the attribute `playbook`
#   --> stack.hcl:25:3
#    |
# 25 |   provision "ansible" {}
#    |   ^^^^^^^^^^^^^^^^^^^
#    = help: playbook = … (path): A playbook below the stack folder. Its folder, with roles, files, templates and collections, is what it can use, without what `.kilnignore` lists.
#
# error[path-escapes]: "../site.yml" leaves the stack folder
#   --> stack.hcl:31:16
#    |
# 31 |     playbook = "../site.yml"
#    |                ^^^^^^^^^^^^^
#    = help: a playbook and what it uses are in the stack folder: they are what is reviewed and hashed
#
# error[path-escapes]: "/etc/site.yml" leaves the stack folder
#   --> stack.hcl:34:16
#    |
# 34 |     playbook = "/etc/site.yml"
#    |                ^^^^^^^^^^^^^^^
#    = help: a playbook and what it uses are in the stack folder: they are what is reviewed and hashed
#
# error[wrong-value]: `playbook` of image "paths": "*.yml" names no file
#   --> stack.hcl:37:16
#    |
# 37 |     playbook = "*.yml"
#    |                ^^^^^^^
#
# error[duplicate]: `base.debian.ansible-trixie` has the name of what Ansible is in
#   --> stack.hcl:39:3
#    |
# 39 |   provision "ansible" {
#    |   ^^^^^^^^^^^^^^^^^^^
#    = help: give the base another name
#
# error[missing-file]: there is no playbook play/absent.yml in the stack folder
#   --> stack.hcl:47:16
#    |
# 47 |     playbook = "./play/absent.yml"
#    |                ^^^^^^^^^^^^^^^^^^^
#
# error[wrong-value]: `vars` of image "words": "a-b" can't be a variable of Ansible
#   --> stack.hcl:56:16
#    |
# 56 |     vars     = { "a-b" = 1 }
#    |                ^^^^^^^^^^^^^
#    = help: letters, digits and `_`, beginning with no digit
#
# error[wrong-value]: `tags` of image "words": "a,b" can't be a tag
#   --> stack.hcl:57:16
#    |
# 57 |     tags     = ["a,b"]
#    |                ^^^^^^^
#
# error[wrong-value]: `groups` of image "words": "all" can't be a group of hosts
#   --> stack.hcl:58:16
#    |
# 58 |     groups   = ["all", "web-servers"]
#    |                ^^^^^^^^^^^^^^^^^^^^^^
#
# error[wrong-value]: `groups` of image "words": "web-servers" can't be a group of hosts
#   --> stack.hcl:58:16
#    |
# 58 |     groups   = ["all", "web-servers"]
#    |                ^^^^^^^^^^^^^^^^^^^^^^
#
# error[missing-attribute]: which Debian suite Ansible is from can't be told: image "secrets" starts from no base
#   --> stack.hcl:64:3
#    |
# 64 |   provision "ansible" {
#    |   ^^^^^^^^^^^^^^^^^^^
#    = help: set `suite`, for example to "bookworm"
#
# error[sensitive-value]: `vars` of image "secrets" would store a sensitive value in clear
#   --> stack.hcl:66:29
#    |
# 66 |     vars     = { password = var.password }
#    |                             ^^^^^^^^^^^^ this is sensitive
#   ::: stack.hcl:4:15
#    |
#  4 |   default   = (sensitive)
#    |               ----------- the value comes from here
#    = help: declare a `secret`, and let the service read it from a file: `secrets = { "/run/secrets/NAME" = secret.NAME }`
#
# error[environment-in-image]: image "secrets" depends on what an environment decides: var.size
#   --> stack.hcl:71:25
#    |
# 71 |     vars     = { size = var.size }
#    |                         ^^^^^^^^ refers to it here
#   ::: stack.hcl:8:1
#    |
#  8 | variable "size" {
#    | --------------- has `scope = "environment"`
#    = help: a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`
