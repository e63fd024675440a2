//! A canary that a Prometheus judges: one that is fine, one that is not, and one of which nobody can tell.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value;

use crate::beside;
use crate::machine::Machine;
use crate::record::assert_went_back;

/// Answers every query with this number; with a negative one it hangs up instead.
struct Prometheus {
    address: SocketAddr,
    number: Arc<AtomicI64>,
}

impl Prometheus {
    fn start() -> Self {
        let number = Arc::new(AtomicI64::new(1));
        let shared = number.clone();
        let address = beside::listen(move |stream| answer(stream, &shared));
        Self { address, number }
    }

    fn set(&self, number: i64) {
        self.number.store(number, Ordering::SeqCst);
    }
}

/// Answers one question, which has no body.
fn answer(mut stream: TcpStream, number: &AtomicI64) -> Option<()> {
    let head = beside::read_head(&mut stream)?;
    let number = number.load(Ordering::SeqCst);
    // Whether parentheses are encoded is the client's choice.
    let head = head.replace("%28", "(").replace("%29", ")");
    let is_asked = head.starts_with("GET /api/v1/query?query=sum(queue) ");
    if number < 0 || !is_asked {
        return None;
    }
    let body = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{number}"]}}]}}}}"#
    );
    beside::reply(&mut stream, "200 OK", &body)
}

/// Deploys a version and returns how its rollout went.
fn deploy(machine: &Machine, version: &str, canary: &str) -> Value {
    machine.write_tiny(version, 1, canary);
    // It follows the rollout to its end, which comes by itself; how it ends is for the test to say.
    machine.command(&["up"]).output().unwrap();
    machine.json(&["rollout", "show"])["record"].clone()
}

#[test]
fn a_canary_goes_on_or_back_by_what_a_prometheus_measures() {
    let (machine, prometheus) = (Machine::new(), Prometheus::start());
    let canary = format!(
        "rollout \"canary\" {{
    steps = [\"50%\"]

    analysis {{
      metric \"queue\" {{
        prometheus  = \"http://{}\"
        query       = \"sum(queue)\"
        success     = \"result < 5\"
        interval    = \"1s\"
        count       = 1
        error_limit = 0
      }}
    }}
  }}",
        prometheus.address
    );
    machine.write_tiny("v1", 1, &canary);
    machine.kiln(&["up"]).ok();

    let fine = deploy(&machine, "v2", &canary);
    assert_eq!(fine["rollout"]["ended"]["outcome"], "completed", "{fine:#}");
    let measured = &fine["measurements"][0];
    assert_eq!((&measured["finding"], &measured["text"]), (&"passed".into(), &"1".into()), "{fine:#}");
    assert_eq!(fine["analyses"][0]["verdict"], "pass", "{fine:#}");

    prometheus.set(9);
    let bad = deploy(&machine, "v3", &canary);
    assert_went_back(&bad, "queue is 9 where `result < 5` is asked for");
    assert_eq!(bad["analyses"][0]["verdict"], "fail", "{bad:#}");

    prometheus.set(-1);
    let away = deploy(&machine, "v4", &canary);
    assert_went_back(&away, "queue could not be measured 1 times in a row");
    assert_eq!(away["measurements"][0]["finding"], "error", "{away:#}");
    assert_eq!(away["analyses"][0]["verdict"], "inconclusive", "{away:#}");
    machine.wait_page("v2");
    let shown = machine.kiln(&["rollout", "show"]).ok().out;
    assert!(shown.contains("queue of tiny could not be measured"), "{shown}");
}
