stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  user    = 1000
  workdir = "/app/"
  scratch = { "/cache" = "64MiB" }
  volumes = {
    "/data"   = volume.data
    "/static" = { volume = volume.data, read_only = true }
  }
  resources {
    memory = "1.5GiB"
    cpu    = 2
    pids   = 64
  }
  security {
    drop_capabilities = ["ALL"]
    add_capabilities  = ["cap_net_bind_service"]
  }
  stop {
    signal = "int"
    grace  = "1m"
  }

  port "http" {
    number = 8080
  }
}

volume "data" {}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# volume data
# service web: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: Some("/app"), user: Some("1000"), secrets: {}, volumes: {"/data": VolumeMount { volume: "data", read_only: false }, "/static": VolumeMount { volume: "data", read_only: true }}, scratch: {"/cache": ByteSize(67108864)}, ports: {"http": 8080}, health: None, limits: Limits { memory: Some(ByteSize(1610612736)), cpu: Some(MilliCpu(2000)), pids: 64 }, security: Security { add_capabilities: {"NET_BIND_SERVICE"}, drop_capabilities: {"ALL"} }, stop_signal: Some("SIGINT"), stop_grace: Millis(60000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
