#: env prod
stack "shop" {}

environment "staging" {}

environment "prod" {
  promote {
    from    = "staging"
    soak    = "1h"
    approve = ["olga", "ops"]

    window {
      days = ["mon", "thu"]
      from = "09:00"
      to   = "24:00"
    }

    freeze {
      from   = "2026-12-20T00:00:00+01:00"
      to     = "2027-01-02T00:00:00Z"
      reason = "nobody is there"
    }
  }
}
#: expect
# stack shop in prod
# gates Gates { from: Some("staging"), soak: Millis(3600000), approve: Some(["olga", "ops"]), windows: [Window { days: [true, false, false, true, false, false, false], from_minute: 540, to_minute: 1440 }], freezes: [Freeze { from: Timestamp(1797721200000), to: Timestamp(1798848000000), reason: "nobody is there" }] }
