stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "short" {
  image = image.web
  rollout "canary" {
    steps = ["0%", "10%"]
    hold  = "30m"
    match { header = "X-Version" }
    analysis { error_rate = { worse_by = 0.01 } }
  }

  port "http" {
    number = 8080
  }
}

service "long" {
  image = image.web
  rollout "canary" {
    step { shift = "0%" }
    step { approve = [] }
    step { shift = "10%" }
    step { analyse = "10m" }
    match { header = "X-Version" }
    analysis { error_rate = { worse_by = 0.01 } }
  }

  port "http" {
    number = 8080
  }
}

service "measured" {
  image = image.web
  rollout "canary" {
    step { shift = "0%" }
    step { analyse = "10m" }
    mirror {}
    analysis {
      metric "queue" {
        prometheus = "http://127.0.0.1:9090"
        query      = "sum(queue_length)"
        success    = "result < 100"
      }
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service long: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(0), gates: [Approve { by: [], within: Millis(86400000) }] }, Stage { weight: Weight(100), gates: [Analyse(Millis(600000))] }], analysis: Some(Analysis { metrics: [Metric { kind: ErrorRate, worse_by: Absolute(10000) }], outside: [], alpha: 50000, inconclusive: Stop, extensions: 0, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [Aim { header: "X-Version", value: Present, group: Canary }], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service measured: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(0), gates: [Analyse(Millis(600000))] }], analysis: Some(Analysis { metrics: [], outside: [OutsideMetric { name: "queue", prometheus: "http://127.0.0.1:9090", access: Access { credentials: None, roots: None }, query: "sum(queue_length)", success: Some(Condition { comparison: Less, with: Number(100.0) }), failure: None, interval: Millis(30000), count: 3, failure_limit: 0, inconclusive_limit: 0, error_limit: 4, dry_run: false }], alpha: 50000, inconclusive: Stop, extensions: 0, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [], mirror: Some(Mirror { share: Weight(1000) }) }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service short: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(0), gates: [Hold(Millis(1800000))] }, Stage { weight: Weight(100), gates: [Hold(Millis(1800000)), Analyse(Millis(600000))] }], analysis: Some(Analysis { metrics: [Metric { kind: ErrorRate, worse_by: Absolute(10000) }], outside: [], alpha: 50000, inconclusive: Stop, extensions: 0, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [Aim { header: "X-Version", value: Present, group: Canary }], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
