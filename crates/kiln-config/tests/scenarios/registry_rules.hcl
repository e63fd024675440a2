stack "shop" {}

registry "docker.io/library" {
  signed_by = ["-----BEGIN PUBLIC KEY-----\nMCo=\n-----END PUBLIC KEY-----\n"]
}

registry "*" {
  signed_by = ["-----BEGIN PUBLIC KEY-----\n"]
}
#: expect
# stack shop in dev
# registry *: RegistryRules { signed_by: ["-----BEGIN PUBLIC KEY-----\n"] }
# registry docker.io/library: RegistryRules { signed_by: ["-----BEGIN PUBLIC KEY-----\nMCo=\n-----END PUBLIC KEY-----\n"] }
