stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "switched" {
  image = image.web
  rollout "blue_green" {
    step {
      mirror = "10%"
      for    = "5m"
    }
    step { mirror = "50%" }
    step { hold = "1m" }
    step { mirror = "0%" }
    step { approve = [] }
  }

  port "http" {
    number = 8080
  }
}

service "shared" {
  image = image.web
  rollout "canary" {
    step { wait = "healthy" }
    step {
      mirror = "100%"
      for    = "5m"
    }
    step { shift = "5%" }
    step { hold = "1m" }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service shared: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Hold(Millis(60000))] }], analysis: None, audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [Mirror { share: Weight(1000), span: Some(Millis(300000)) }], moved: [], drained: [], retired: [] } }
# service switched: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [Mirror { share: Weight(100), span: Some(Millis(300000)) }, Mirror { share: Weight(500), span: None }, Hold(Millis(60000)), Mirror { share: Weight(0), span: None }, Approve { by: [], within: Millis(86400000) }], moved: [], drained: [], retired: [] } }
