//! A canary that a Prometheus judges: one that is fine, one that is not, and one of which nobody can tell.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::machine::Machine;

/// Answers every query with this number; with a negative one it hangs up instead.
struct Prometheus {
    address: SocketAddr,
    number: Arc<AtomicI64>,
}

impl Prometheus {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, number) = (listener.local_addr().unwrap(), Arc::new(AtomicI64::new(1)));
        let shared = number.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = shared.clone();
                thread::spawn(move || answer(stream, &number));
            }
        });
        Self { address, number }
    }

    fn set(&self, number: i64) {
        self.number.store(number, Ordering::SeqCst);
    }
}

/// Answers one question, which has no body.
fn answer(mut stream: TcpStream, number: &AtomicI64) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let number = number.load(Ordering::SeqCst);
    // Whether parentheses are encoded is the client's choice.
    let head = String::from_utf8_lossy(&head).replace("%28", "(").replace("%29", ")");
    let is_asked = head.starts_with("GET /api/v1/query?query=sum(queue) ");
    if number < 0 || !is_asked {
        return None;
    }
    let body = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{number}"]}}]}}}}"#
    );
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").ok()
}

/// Deploys a version and returns how its rollout went.
fn deploy(machine: &Machine, version: &str, canary: &str) -> Value {
    machine.write_tiny(version, 1, canary);
    // It follows the rollout to its end, which comes by itself; how it ends is for the test to say.
    machine.command(&["up"]).output().unwrap();
    machine.json(&["rollout", "show"])["record"].clone()
}

fn assert_went_back(record: &Value, because: &str) {
    assert_eq!(record["rollout"]["ended"]["outcome"], "went_back", "{record:#}");
    let reason = record["rollout"]["ended"]["reason"].as_str().unwrap();
    assert!(reason.contains(because), "{reason}");
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
