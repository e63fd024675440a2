stack "shop" {}

secret "hook" {
  file = "secrets/hook"
}

notify "chat" {
  url    = "https://chat.example/hooks/kiln"
  events = ["waiting", "completed", "went_back"]
  secret = secret.hook
}

notify "all" {
  url    = "http://127.0.0.1:8099/"
  secret = secret.hook
}
#: expect
# stack shop in dev
# secret hook: File("secrets/hook")
# notify all WebhookDefinition { url: "http://127.0.0.1:8099/", events: {Started, Waiting, Analysed, Completed, GoingBack, Aborted, WentBack, Stuck, Superseded}, secret: "hook" }
# notify chat WebhookDefinition { url: "https://chat.example/hooks/kiln", events: {Waiting, Completed, WentBack}, secret: "hook" }
