//! Is everybody told of a rollout who is to be, by whom they can be sure of, and whatever dies meanwhile?

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;

use crate::beside;
use crate::machine::{Machine, wait_for};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One request, as it came.
#[derive(Debug, Clone)]
struct Came {
    id: String,
    is_signed: bool,
    body: Value,
    /// What it was answered.
    answer: u16,
}

/// Takes what it is told, with these answers one after the other; the last one stays.
struct Receiver {
    address: SocketAddr,
    answers: Arc<Mutex<Vec<u16>>>,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Receiver {
    fn start(answers: &[u16]) -> Self {
        let answers = Arc::new(Mutex::new(answers.to_vec()));
        let came = Arc::new(Mutex::new(Vec::new()));
        let (next, all) = (answers.clone(), came.clone());
        let address = beside::listen(move |stream| take(stream, &next, &all));
        Self { address, answers, came }
    }

    fn answer(&self, answers: &[u16]) {
        *self.answers.lock().unwrap() = answers.to_vec();
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// The types of what was taken.
    fn taken(&self) -> Vec<String> {
        let taken = self.came().into_iter().filter(|came| came.answer == 204);
        taken.map(|came| came.body["type"].as_str().unwrap().to_owned()).collect()
    }
}

/// Takes one request and answers it.
fn take(mut stream: TcpStream, answers: &Mutex<Vec<u16>>, came: &Mutex<Vec<Came>>) -> Option<()> {
    let head = beside::read_head(&mut stream)?;
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_")?).ok()?;
    let said = [format!("{id}.{timestamp}.").into_bytes(), body.clone()].concat();
    let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &said);
    let is_signed = header("webhook-signature")? == format!("v1,{}", STANDARD.encode(signed));
    let answer = {
        let mut answers = answers.lock().unwrap();
        if answers.len() > 1 { answers.remove(0) } else { answers[0] }
    };
    let body = serde_json::from_slice(&body).ok()?;
    came.lock().unwrap().push(Came { id, is_signed, body, answer });
    beside::reply(&mut stream, &format!("{answer} ."), "")
}

fn write(machine: &Machine, receiver: &Receiver, version: &str) {
    machine.write("secrets/hook", format!("{SECRET}\n"));
    machine.write_tiny(version, 1, "");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let notify = format!(
        "
secret \"hook\" {{
  file = \"secrets/hook\"
}}

notify \"chat\" {{
  url    = \"http://{}/kiln\"
  events = [\"started\", \"completed\", \"going_back\", \"went_back\"]
  secret = secret.hook
}}
",
        receiver.address
    );
    machine.write("stack.hcl", stack + &notify);
}

#[test]
fn what_happens_is_told_signed_and_again_until_it_is_taken_also_by_the_next_controller() {
    let (machine, receiver) = (Machine::new(), Receiver::start(&[500]));
    write(&machine, &receiver, "v1");
    assert!(machine.kiln(&["plan"]).ok().out.contains("notify.chat will be created"));
    machine.kiln(&["up"]).ok();
    // The receiver took nothing yet: it is held by nobody but the files.
    let first = wait_for("somebody tried to tell it", || receiver.came().into_iter().next());
    machine.kill("controller");
    receiver.answer(&[503, 204]);
    wait_for("all is told", || (receiver.taken().len() >= 2).then_some(()));
    let came = receiver.came();
    assert!(came.iter().all(|came| came.is_signed), "{came:#?}");
    let again: Vec<&Came> = came.iter().filter(|came| came.id == first.id).collect();
    assert!(again.len() > 1 && again.iter().all(|came| came.body == first.body), "{came:#?}");
    assert_eq!(receiver.taken(), ["rollout.started", "rollout.completed"], "{came:#?}");
    let data = &first.body["data"];
    assert_eq!((data["environment"].as_str(), data["to"].as_u64()), (Some("dev"), Some(1)), "{data}");

    // One that wants no more says so, and is told nothing of that again: the log says that it missed it.
    receiver.answer(&[410, 204]);
    machine.kiln(&["down"]).ok();
    wait_for("the rest is told", || (receiver.taken().len() >= 3).then_some(()));
    assert_eq!(receiver.taken().last().unwrap(), "rollout.completed");
    wait_for("what was given up is in the log", || {
        machine.kiln(&["events"]).ok().out.contains("chat could not be told").then_some(())
    });
    let everything = machine.kiln(&["events", "--json"]).ok().out;
    assert!(!everything.contains("MfKQ9r8GKYqr"), "the secret is nobody's");
}
