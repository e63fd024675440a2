stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]

    analysis {
      metric "queue" {
        prometheus         = "http://127.0.0.1:9090"
        query              = "sum(queue_length)"
        success            = "result < 100"
        failure            = "result[0] >= 1e3"
        interval           = "10s"
        count              = 5
        failure_limit      = 1
        inconclusive_limit = 2
        error_limit        = 3
        dry_run            = true
      }
      metric "errors" {
        prometheus = "https://prometheus.example/prefix"
        query      = "sum(rate(errors[1m]))"
        failure    = "result > 0.05"
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
# service web: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Analyse(Millis(600000))] }], analysis: Some(Analysis { metrics: [], outside: [OutsideMetric { name: "queue", prometheus: "http://127.0.0.1:9090", access: Access { credentials: None, roots: None }, query: "sum(queue_length)", success: Some(Condition { comparison: Less, with: Number(100.0) }), failure: Some(Condition { comparison: AtLeast, with: Number(1000.0) }), interval: Millis(10000), count: 5, failure_limit: 1, inconclusive_limit: 2, error_limit: 3, dry_run: true }, OutsideMetric { name: "errors", prometheus: "https://prometheus.example/prefix", access: Access { credentials: None, roots: None }, query: "sum(rate(errors[1m]))", success: None, failure: Some(Condition { comparison: Greater, with: Number(0.05) }), interval: Millis(30000), count: 3, failure_limit: 0, inconclusive_limit: 0, error_limit: 4, dry_run: false }], alpha: 50000, inconclusive: Stop, extensions: 0, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
