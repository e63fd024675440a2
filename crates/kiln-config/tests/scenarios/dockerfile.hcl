stack "s" {}

base "debian" "slim" {
  suite = "bookworm"
}

secret "npm_token" {
  env = "NPM_TOKEN"
}

image "tools" {
  from = "scratch"
}

image "web" {
  dockerfile = "./web"
  context    = "."
  target     = "release"
  args       = { VERSION = "1.2", N = 3 }
  contexts   = { "debian:bookworm" = base.debian.slim, tools = image.tools, empty = "scratch" }
  secrets    = { npm = secret.npm_token }
  ssh        = true
  network    = true
}
#: expect
# stack s in dev
# base slim: Debian(DebianBase { suite: "bookworm", mirror: None, components: ["main"], packages: [], variant: Essential })
# image tools: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: [], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# image web: ImageRecipe { from: Dockerfile(DockerfileSource { path: "web", context: Some(""), target: Some("release"), args: {"N": "3", "VERSION": "1.2"}, contexts: {"debian:bookworm": Base("slim"), "empty": Scratch, "tools": Image("tools")}, secrets: {"npm": "npm_token"}, ssh: true, network: true }), steps: [], config: ImageConfig { env: {}, entrypoint: [], command: [], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# secret npm_token: Environment("NPM_TOKEN")
