stack "shop" {}

image "base" {
  from = base.debian.slim
  env  = { A = 1, B = true }
  expose = [80, "53/udp"]
  labels = { "org.x" = "y" }
  entrypoint = ["/init"]
}

image "web" {
  from = image.base
  run {
    command = ["a"]
    network = true
    env     = { X = "y" }
  }
  copy {
    from    = "./src/**/*.py"
    to      = "/app/"
    owner   = "www-data:www-data"
    mode    = "0755"
    exclude = ["*.pyc"]
  }
  run {
    command = ["b"]
  }
  test "up" {
    memory = "64MiB"
    tcp {
      port = 5
    }
  }
}

base "debian" "slim" {
  suite      = "bookworm"
  variant    = "minbase"
  mirror     = "http://deb.example/debian/"
  components = ["main", "contrib"]
}
#: expect
# stack shop in dev
# base slim: Debian(DebianBase { suite: "bookworm", mirror: Some("http://deb.example/debian"), components: ["main", "contrib"], packages: [], variant: MinBase })
# image base: ImageRecipe { from: Base("slim"), steps: [], config: ImageConfig { env: {"A": "1", "B": "true"}, entrypoint: ["/init"], command: [], workdir: "", user: "", labels: {"org.x": "y"}, expose: ["80/tcp", "53/udp"], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# image web: ImageRecipe { from: Image("base"), steps: [Run(RunStep { argv: ["a"], env: {"X": "y"}, workdir: "", user: "", network: true }), Copy(CopyStep { from: "src/**/*.py", to: "/app/", owner: "www-data:www-data", mode: Some(493), exclude: ["*.pyc"] }), Run(RunStep { argv: ["b"], env: {}, workdir: "", user: "", network: false })], config: ImageConfig { env: {}, entrypoint: [], command: [], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [ImageTest { name: "up", inspection: Inspection { files: [], packages: [], no_root: false, no_setuid: false }, probe: Some(Tcp { port: 5 }), closed_ports: {}, within: Millis(30000), env: {}, memory: Some(ByteSize(67108864)) }], scan: None }
