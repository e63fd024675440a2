stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]

  test "version" {
    closed_ports = [22, 8081]

    exec {
      command  = ["/web", "--version"]
      exit     = 3
      stdout   = "web 2.1"
      contains = ["web"]
      matches  = ["^web \\d"]
      within   = "5s"
    }
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [ImageTest { name: "version", inspection: Inspection { files: [], packages: [], no_root: false, no_setuid: false }, probe: Some(Command { argv: ["/web", "--version"], expected: Some(ExpectedRun { exit: 3, stdout: Some("web 2.1"), contains: ["web"], matches: ["^web \\d"] }) }), closed_ports: {22, 8081}, within: Millis(5000), env: {}, memory: None }], scan: None }
