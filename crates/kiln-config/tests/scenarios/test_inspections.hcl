stack "shop" {}

image "web" {
  from = "scratch"

  test "hardened" {
    no_root   = true
    no_setuid = true

    file {
      path  = "/app"
      owner = "7:7"
      mode  = "0644"
    }

    file {
      path   = "/bin/sh"
      absent = true
    }

    package {
      name    = "openssl"
      version = "3.0.15-1"
    }
  }

  test "both" {
    no_root = true

    tcp {
      port = 80
    }
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: [], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [ImageTest { name: "hardened", inspection: Inspection { files: [ExpectedFile { path: "/app", absent: false, owner: Some("7:7"), mode: Some(420) }, ExpectedFile { path: "/bin/sh", absent: true, owner: None, mode: None }], packages: [ExpectedPackage { name: "openssl", absent: false, version: Some("3.0.15-1") }], no_root: true, no_setuid: true }, probe: None, closed_ports: {}, within: Millis(30000), env: {}, memory: None }, ImageTest { name: "both", inspection: Inspection { files: [], packages: [], no_root: true, no_setuid: false }, probe: Some(Tcp { port: 80 }), closed_ports: {}, within: Millis(30000), env: {}, memory: None }], scan: None }
