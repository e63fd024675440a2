//! Rollouts that ask somebody who wants to know who asks, and who shows a certificate of his own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::beside;
use crate::machine::Machine;
use crate::record::assert_went_back;

const TOKEN: &str = "mF_9.B5f-4.1JqM";

/// The one of `PASSWORD`, as `htpasswd -B` writes it.
const USERS: &str = "ann:$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe\n";
const PASSWORD: &str = "a";

/// Answers a query with 1 to whoever shows the token.
fn prometheus(mut stream: TcpStream) -> Option<()> {
    let head = beside::read_head(&mut stream)?;
    if !head
        .to_ascii_lowercase()
        .contains(&format!("authorization: bearer {}\r\n", TOKEN.to_ascii_lowercase()))
    {
        return beside::reply(&mut stream, "401 Unauthorized", "who are you?");
    }
    let body = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#;
    beside::reply(&mut stream, "200 OK", body)
}

/// Somebody behind TLS who wants a password: a registry.
struct Guarded {
    process: Child,
    /// What asks for its users only.
    url: String,
}

impl Guarded {
    fn start(folder: &Path) -> Self {
        let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                     -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        let mut openssl = Command::new("openssl");
        openssl.args(words.split(' ')).args(["-out", "ca.pem", "-keyout", "key.pem"]).current_dir(folder);
        assert!(openssl.stderr(Stdio::null()).status().unwrap().success());
        fs::write(folder.join("users"), USERS).unwrap();
        let words = "registry serve --listen 127.0.0.1:0 --tls-cert ca.pem --tls-key key.pem --htpasswd users --root registry";
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
        kiln.args(words.split(' ')).current_dir(folder).stdin(Stdio::null());
        let mut process = kiln.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("://").unwrap_or_else(|| panic!("it said {line:?}")).1;
        Self { process, url: format!("https://{address}/v2/") }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Deploys a version and returns how its rollout went.
fn deploy(machine: &Machine, version: &str, rollout: &str) -> Value {
    machine.write_tiny(version, 1, rollout);
    // It follows the rollout to its end, which comes by itself; how it ends is for the test to say.
    machine.command(&["up"]).output().unwrap();
    machine.json(&["rollout", "show"])["record"].clone()
}

/// Whether any file below a folder has this text.
fn is_somewhere(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().flatten().any(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => is_somewhere(&entry.path(), text),
        kind if kind.is_file() => fs::read(entry.path())
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|it| it == text.as_bytes())),
        _ => false,
    })
}

#[test]
fn who_is_asked_is_told_who_asks_and_believed_by_the_certificate_that_the_stack_names() {
    let (machine, folder) = (Machine::new(), tempfile::tempdir_in("/var/tmp").unwrap());
    let (guarded, measures) = (Guarded::start(folder.path()), beside::listen(prometheus));
    fs::copy(folder.path().join("ca.pem"), machine.stack().join("ca.pem")).unwrap();
    machine.write("token", TOKEN);
    machine.write("password", PASSWORD);
    machine.write(
        "secrets.hcl",
        "secret \"token\" {\n  file = \"token\"\n}\n\nsecret \"password\" {\n  file = \"password\"\n}\n",
    );
    let rollout = format!(
        "rollout \"canary\" {{
    step {{
      check {{
        http {{
          url      = \"{}\"
          user     = \"ann\"
          password = secret.password
          ca       = file(\"ca.pem\")
        }}
      }}
    }}
    step {{ shift = \"50%\" }}
    step {{ analyse = \"1m\" }}

    analysis {{
      metric \"queue\" {{
        prometheus  = \"http://{measures}\"
        query       = \"sum(queue)\"
        success     = \"result < 5\"
        bearer      = secret.token
        interval    = \"1s\"
        count       = 1
        error_limit = 0
      }}
    }}
  }}",
        guarded.url
    );
    machine.write_tiny("v1", 1, &rollout);
    machine.kiln(&["up"]).ok();
    let fine = deploy(&machine, "v2", &rollout);
    assert_eq!(fine["rollout"]["ended"]["outcome"], "completed", "{fine:#}");
    assert_eq!(fine["measurements"][0]["finding"], "passed", "{fine:#}");
    assert!(!is_somewhere(machine.state(), TOKEN), "a value is nowhere but sealed");

    machine.write("token", "another");
    let strange = deploy(&machine, "v3", &rollout);
    assert_went_back(&strange, "queue could not be measured 1 times in a row");
    let text = strange["measurements"][0]["text"].as_str().unwrap();
    assert!(text.contains("401"), "{strange:#}");

    machine.write("token", TOKEN);
    machine.write("password", "b");
    let unknown = deploy(&machine, "v4", &rollout);
    assert_went_back(&unknown, "it answered 401");

    machine.write("password", PASSWORD);
    let rollout = rollout.replace("ca       = file(\"ca.pem\")", "");
    let unbelieved = deploy(&machine, "v5", &rollout);
    assert_went_back(&unbelieved, "certificate");
    machine.wait_page("v2");
}
