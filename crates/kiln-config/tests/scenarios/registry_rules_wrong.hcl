stack "shop" {}

registry "library/debian" {
  signed_by = []
}

registry "https://ghcr.io" {}

registry "ghcr.io/shop" {
  signed_by = ["keys/release.pub"]
}

registry "ghcr.io/shop" {
  signed_by = ["-----BEGIN PUBLIC KEY-----\n"]
}
#: expect
# error[invalid-name]: `library/debian` begins no name of an image in a registry
#  --> stack.hcl:3:10
#   |
# 3 | registry "library/debian" {
#   |          ^^^^^^^^^^^^^^^^
#   = help: write a host as in `from`, and perhaps a part of the path: "docker.io/library"; or "*" for all
#
# error[wrong-value]: `signed_by` of registry "library/debian" names no key, so no image would do
#  --> stack.hcl:4:15
#   |
# 4 |   signed_by = []
#   |               ^^
#   = help: read one from a file of the stack folder: `signed_by = [file("keys/release.pub")]`
#
# error[missing-attribute]: `registry` needs the attribute `signed_by`
#  --> stack.hcl:7:1
#   |
# 7 | registry "https://ghcr.io" {}
#   | ^^^^^^^^^^^^^^^^^^^^^^^^^^
#   = help: signed_by = … (list of strings): Public keys in PEM. One of them must have signed the image, or the list for several machines that it is in, as `kiln image sign` and `cosign sign --key` do; else nothing is locked and nothing baked.
#
# error[invalid-name]: `https://ghcr.io` begins no name of an image in a registry
#  --> stack.hcl:7:10
#   |
# 7 | registry "https://ghcr.io" {}
#   |          ^^^^^^^^^^^^^^^^^
#   = help: write a host as in `from`, and perhaps a part of the path: "docker.io/library"; or "*" for all
#
# error[wrong-value]: `signed_by` of registry "ghcr.io/shop": "keys/release.pub" is no public key in PEM
#   --> stack.hcl:10:15
#    |
# 10 |   signed_by = ["keys/release.pub"]
#    |               ^^^^^^^^^^^^^^^^^^^^
#    = help: read one from a file of the stack folder: `signed_by = [file("keys/release.pub")]`
#
# error[duplicate]: `registry "ghcr.io/shop"` is declared twice
#   --> stack.hcl:13:10
#    |
# 13 | registry "ghcr.io/shop" {
#    |          ^^^^^^^^^^^^^^ again here
#   ::: stack.hcl:9:1
#    |
#  9 | registry "ghcr.io/shop" {
#    | ----------------------- first here
