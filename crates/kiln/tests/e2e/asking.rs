//! Rollouts that ask over HTTP whether they may go on.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::beside;
use crate::machine::Machine;
use crate::record::assert_went_back;

/// Answers with 503 so many times, then with 200; with a negative number it takes what it is asked and says nothing.
struct Gatekeeper {
    address: SocketAddr,
    busy: Arc<AtomicI64>,
}

impl Gatekeeper {
    fn start() -> Self {
        let busy = Arc::new(AtomicI64::new(0));
        let shared = busy.clone();
        let address = beside::listen(move |stream| answer(stream, &shared));
        Self { address, busy }
    }

    fn set(&self, busy: i64) {
        self.busy.store(busy, Ordering::SeqCst);
    }
}

fn answer(mut stream: TcpStream, busy: &AtomicI64) -> Option<()> {
    beside::read_head(&mut stream)?;
    let left = busy.load(Ordering::SeqCst);
    if left < 0 {
        // Until the asker has enough.
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let _ = stream.read(&mut [0]);
        return None;
    }
    busy.store((left - 1).max(0), Ordering::SeqCst);
    let (status, body) = if left > 0 { ("503 Busy", "not yet") } else { ("200 OK", "go on") };
    beside::reply(&mut stream, status, body)
}

/// Deploys a version whose new instances must say this, and returns how its rollout went.
fn deploy(machine: &Machine, version: &str, says: &str, gate: &str) -> Value {
    let steps = format!(
        "rollout \"blue_green\" {{
    step {{
      check {{
        http {{
          path     = \"/\"
          contains = \"{says} \"
        }}
      }}
    }}
    step {{
      check {{
        http {{
          url    = \"http://{gate}/ready?deep=1\"
          method = \"POST\"
        }}
        timeout  = \"2s\"
        attempts = 3
        interval = \"200ms\"
      }}
    }}
  }}"
    );
    machine.write_tiny(version, 2, &steps);
    // It follows the rollout to its end, which comes by itself; how it ends is for the test to say.
    machine.command(&["up"]).output().unwrap();
    machine.json(&["rollout", "show"])["record"].clone()
}

#[test]
fn a_rollout_asks_its_new_instances_and_others_and_goes_back_where_an_answer_is_wrong() {
    let (machine, gate) = (Machine::new(), Gatekeeper::start());
    let address = gate.address.to_string();
    let first = deploy(&machine, "v1", "v1", &address);
    assert_eq!(first["rollout"]["ended"]["outcome"], "completed", "{first:#}");

    // The new instances answer as themselves before anybody else can ask them; the gatekeeper gives way at the third attempt.
    gate.set(2);
    let second = deploy(&machine, "v2", "v2", &address);
    assert_eq!(second["rollout"]["ended"]["outcome"], "completed", "{second:#}");
    let steps = machine.kiln(&["rollout", "show", "--steps"]).ok().out;
    assert!(steps.contains("ask / of each new tiny"), "{steps}");
    let events = machine.kiln(&["events"]).ok().out;
    assert!(events.contains("failed: it answered 503: not yet"), "{events}");
    machine.wait_page("v2");

    let other = deploy(&machine, "v3", "another", &address);
    assert_went_back(&other, "answered 200 without \"another \": v3 ");

    gate.set(i64::MAX);
    let busy = deploy(&machine, "v4", "v4", &address);
    assert_went_back(&busy, "it answered 503: not yet (3 of 3 attempts failed)");

    gate.set(-1);
    let silent = deploy(&machine, "v5", "v5", &address);
    assert_went_back(&silent, "it did not answer within 2s (3 of 3 attempts failed)");
    machine.wait_page("v2");
}

#[test]
fn a_controller_that_is_killed_while_it_waits_for_an_answer_is_followed_by_one_that_asks_again() {
    let (machine, gate) = (Machine::new(), Gatekeeper::start());
    let address = gate.address.to_string();
    deploy(&machine, "v1", "v1", &address);
    gate.set(i64::MAX);
    let steps = format!(
        "rollout \"blue_green\" {{
    step {{
      check {{
        http {{ url = \"http://{address}/\" }}
        attempts = 1000
        interval = \"200ms\"
      }}
    }}
  }}"
    );
    machine.write_tiny("v2", 1, &steps);
    let ran = machine.kiln_until(&["up"], "answered 503", || {
        machine.kill("controller");
        gate.set(0);
    });
    ran.ok();
    machine.wait_page("v2");
}
