stack "shop" {}

variable "workers" {
  default = 4
}

base "debian" "slim" {
  suite  = "bookworm"
  mirror = "http://deb.example/debian"
}

image "web" {
  from = base.debian.slim
  run {
    command = ["a"]
  }
  provision "ansible" {
    playbook = "./provision/../provision/site.yml"
    vars     = { workers = var.workers, name = "x" }
    tags     = ["web"]
    groups   = ["webservers"]
    network  = true
  }
  provision "ansible" {
    playbook = "last.yml"
    suite    = "trixie"
  }
}

image "more" {
  from = image.web
  provision "ansible" {
    playbook = "more.yml"
  }
}
#: file provision/site.yml=- hosts: all
#: file last.yml=- hosts: all
#: file more.yml=- hosts: all
#: expect
# stack shop in dev
# base ansible-bookworm: Debian(DebianBase { suite: "bookworm", mirror: Some("http://deb.example/debian"), components: ["main"], packages: ["ansible-core", "python3-apt"], variant: Tools })
# base ansible-trixie: Debian(DebianBase { suite: "trixie", mirror: None, components: ["main"], packages: ["ansible-core", "python3-apt"], variant: Tools })
# base slim: Debian(DebianBase { suite: "bookworm", mirror: Some("http://deb.example/debian"), components: ["main"], packages: [], variant: Essential })
# image more: ImageRecipe { from: Image("web"), steps: [Provision(ProvisionStep { playbook: "more.yml", vars: {}, tags: [], groups: [], network: false, tools: "ansible-bookworm" })], config: ImageConfig { env: {}, entrypoint: [], command: [], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# image web: ImageRecipe { from: Base("slim"), steps: [Run(RunStep { argv: ["a"], env: {}, workdir: "", user: "", network: false }), Provision(ProvisionStep { playbook: "provision/site.yml", vars: {"name": "x", "workers": "4"}, tags: ["web"], groups: ["webservers"], network: true, tools: "ansible-bookworm" }), Provision(ProvisionStep { playbook: "last.yml", vars: {}, tags: [], groups: [], network: false, tools: "ansible-trixie" })], config: ImageConfig { env: {}, entrypoint: [], command: [], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
