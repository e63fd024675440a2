//! One Kiln of its own for one test: a state folder, a stack folder, a port, and a check that nothing is left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::Plan;

/// A bound on every wait of the tests: far beyond what anything takes, so that a hang fails instead of hanging CI.
pub const WITHIN: Duration = Duration::from_secs(60);

/// What fills a small disk.
const BALLAST: &str = "ballast";

/// What one `kiln` command did.
pub struct Ran {
    /// Its exit code; -1 for a signal.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Ran {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "exit code\n--- stdout\n{}\n--- stderr\n{}", self.out, self.err);
        self
    }

    /// Fails the test unless the command failed and said this.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Self {
        assert_ne!(self.code, 0, "it succeeded\n--- stdout\n{}", self.out);
        assert!(
            self.err.contains(text),
            "expected `{text}` in\n--- stdout\n{}\n--- stderr\n{}",
            self.out,
            self.err
        );
        self
    }
}

/// What became of the requests of an environment.
#[derive(Debug)]
pub struct Requests {
    /// Received, and then cut or answered by the edge with an error.
    pub lost: u64,
    /// Of those, cut.
    pub cut: u64,
    /// Received and not ended.
    pub in_flight: u64,
}

/// A Kiln of its own.
pub struct Machine {
    state: tempfile::TempDir,
    stack: tempfile::TempDir,
    /// Where its public route listens.
    pub address: SocketAddr,
    _reserved: UdpSocket,
    /// Whether the state folder is a file system of its own.
    is_mounted: bool,
}

impl Machine {
    /// Makes the folders and picks a free port; nothing runs yet.
    pub fn new() -> Self {
        let folder = |prefix| {
            tempfile::Builder::new().prefix(prefix).tempdir_in("/var/tmp").expect("/var/tmp is writable")
        };
        let (address, reserved) = free_address();
        Self {
            state: folder("kiln-state-"),
            stack: folder("kiln-stack-"),
            address,
            _reserved: reserved,
            is_mounted: false,
        }
    }

    /// As [`Machine::new`], with a small disk for the state folder.
    pub fn with_disk(size: &str) -> Self {
        let mut machine = Self::new();
        let options = format!("size={size},mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "kiln-test"]).arg(machine.state());
        assert!(mount.status().expect("mount can be run").success(), "a small disk can be mounted");
        machine.is_mounted = true;
        machine
    }

    /// Fills what is left of the disk; removing the file makes room again.
    pub fn fill_disk(&self) -> PathBuf {
        let path = self.state().join(BALLAST);
        let mut file = fs::File::create(&path).expect("a file needs no room");
        let error = std::io::copy(&mut std::io::repeat(0), &mut file).expect_err("the disk is bounded");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        path
    }

    /// Returns the state folder.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Returns the stack folder.
    pub fn stack(&self) -> &Path {
        self.stack.path()
    }

    /// Writes a file of the stack folder.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.stack.path().join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder"))
            .expect("the stack folder is writable");
        fs::write(path, text).expect("the stack folder is writable");
    }

    /// Writes a stack of one static service, `replicas` times, that answers with `version`; more goes into the service.
    pub fn write_tiny(&self, version: &str, replicas: u32, more: &str) {
        fs::copy(tiny(), self.stack.path().join("tiny")).expect("the stack folder is writable");
        self.write("stack.hcl", tiny_stack(self.address, version, replicas, more));
    }

    /// Replaces a text of the stack file.
    #[track_caller]
    pub fn edit_stack(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.stack.path().join("stack.hcl")).expect("the stack is written");
        assert!(text.contains(old), "`{old}` is not in the stack");
        self.write("stack.hcl", text.replace(old, new));
    }

    /// Runs `kiln` in the stack folder.
    pub fn kiln(&self, words: &[&str]) -> Ran {
        ran(self.command(words).output().expect("the binary can be run"))
    }

    /// Runs `kiln` in the stack folder while something else is done.
    pub fn kiln_while(&self, words: &[&str], act: impl FnOnce()) -> Ran {
        let mut command = self.command(words);
        let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kiln runs");
        act();
        ran(child.wait_with_output().expect("its output can be read"))
    }

    /// Runs `kiln`, and does something once it says this on stderr. Fails the test if it never says it.
    #[track_caller]
    pub fn kiln_until(&self, words: &[&str], says: &str, act: impl FnOnce()) -> Ran {
        let mut said = false;
        let ran = self.kiln_until_or_after(words, says, |in_time| {
            said = in_time;
            act();
        });
        assert!(said, "it never said `{says}`:\n{}", ran.err);
        ran
    }

    /// As [`Machine::kiln_until`], for a command that may be over before it could say it: then the something is done after
    /// it, and told so.
    pub fn kiln_until_or_after(&self, words: &[&str], says: &str, act: impl FnOnce(bool)) -> Ran {
        let mut command = self.command(words);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kiln runs");
        let mut act = Some(act);
        let mut err = String::new();
        for line in BufReader::new(child.stderr.take().expect("stderr is piped")).lines() {
            let line = line.expect("what kiln says is text");
            if line.contains(says)
                && let Some(act) = act.take()
            {
                act(true);
            }
            err.push_str(&line);
            err.push('\n');
        }
        let ran = ran(child.wait_with_output().expect("a child can be waited for"));
        if let Some(act) = act {
            act(false);
        }
        Ran { err, ..ran }
    }

    /// What the ledger says of the environment, through `kiln status`.
    pub fn requests(&self) -> Requests {
        let status = self.json(&["status"]);
        let counts = &status["environments"][0]["requests"];
        let count = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {status}"));
        Requests { lost: count("lost"), cut: count("cut"), in_flight: count("in_flight") }
    }

    /// The instances of the environment, as `kiln ps` lists them.
    pub fn instances(&self) -> Vec<Value> {
        self.json(&["ps"])["instances"].as_array().expect("ps lists instances").clone()
    }

    /// Runs `kiln` and reads its answer as JSON.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let ran = self.kiln(&[words, &["--json"]].concat()).ok();
        serde_json::from_str(&ran.out).expect("--json answers in JSON")
    }

    /// A command that is ready to run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(words)
            .env("KILN_STATE", self.state.path())
            .current_dir(self.stack.path())
            .stdin(Stdio::null());
        command
    }

    /// Load on the public route, as the acceptance asks for it.
    pub fn plan(&self, rate: u32) -> Plan {
        Plan { address: self.address, host: "tiny.localhost".into(), rate, streams: 8, workers: 64 }
    }

    /// The pid of one of Kiln's processes.
    #[track_caller]
    pub fn pid(&self, process: &str) -> i32 {
        let path = self.state.path().join("run").join(format!("{process}.alive"));
        wait_for(&format!("{process} writes its pid"), || fs::read_to_string(&path).ok()?.trim().parse().ok())
    }

    /// Kills one of Kiln's processes with SIGKILL.
    pub fn kill(&self, process: &str) {
        signal(self.pid(process), 9);
    }

    /// What a failed test is told for.
    fn tell(&self) {
        eprintln!("--- GET /page: {:?}", self.get("/page"));
        for words in [&["status"][..], &["ps"], &["events", "--all"]] {
            let ran = self.kiln(words);
            eprintln!("--- kiln {}\n{}{}", words.join(" "), ran.out, ran.err);
        }
    }

    fn tell_logs(&self) {
        for process in ["host", "controller", "edge"] {
            let log =
                fs::read_to_string(self.state.path().join(format!("run/{process}.log"))).unwrap_or_default();
            eprintln!("--- {process}.log\n{log}");
        }
    }

    /// One GET, answered or not.
    pub fn get(&self, path: &str) -> Result<String, String> {
        get(self.address, "tiny.localhost", path)
    }

    /// Waits until the page begins with this word.
    #[track_caller]
    pub fn wait_page(&self, version: &str) {
        wait_for(&format!("the page says {version}"), || {
            self.get("/page").ok().filter(|body| body.split_whitespace().next() == Some(version))
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What needs room is cleaned up with room.
        let _ = fs::remove_file(self.state().join(BALLAST));
        if std::thread::panicking() {
            self.tell();
        }
        let id = fs::read_to_string(self.state().join("id")).unwrap_or_default();
        let stop = self.command(&["host", "stop", "--force"]).output();
        if std::thread::panicking() {
            self.tell_logs();
        }
        if self.is_mounted {
            // Lazily: a process that was told to stop a moment ago may hold it for another.
            let _ = Command::new("umount").arg("-l").arg(self.state()).status();
        }
        if std::thread::panicking() {
            return;
        }
        let stop = ran(stop.expect("the binary can be run"));
        assert_eq!(stop.code, 0, "kiln host stop --force: {}{}", stop.out, stop.err);
        let left = left_behind(id.trim());
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Kernel objects that bear the id of a Kiln.
fn left_behind(id: &str) -> Vec<PathBuf> {
    if id.is_empty() {
        return Vec::new();
    }
    let link = PathBuf::from(format!("/sys/class/net/k{id}br"));
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let groups = hierarchies.map(|folder| folder.path().join(format!("kiln-{id}")));
    groups
        .chain([link, PathBuf::from(format!("/sys/fs/cgroup/kiln-{id}"))])
        .filter(|path| path.exists())
        .collect()
}

/// A stack of one static service on a hand-made image.
pub fn tiny_stack(address: SocketAddr, version: &str, replicas: u32, more: &str) -> String {
    format!(
        r#"
stack "tiny" {{}}

image "tiny" {{
  from    = "scratch"
  command = ["/tiny"]

  copy {{
    from = "./tiny"
    to   = "/tiny"
    mode = "0755"
  }}
}}

service "tiny" {{
  image    = image.tiny
  replicas = {replicas}
  env      = {{ VERSION = "{version}" }}

  port "http" {{
    number = 8080
  }}

  health {{
    http     = "/healthz"
    interval = "1s"
  }}
  {more}
}}

route "public" {{
  listen = "{address}"
  to     = service.tiny.http
}}
"#
    )
}

/// The binary under test: the one that cargo built beside the test, unless a bench names another.
pub static BINARY: OnceLock<PathBuf> = OnceLock::new();

fn binary() -> &'static Path {
    const BUILT: Option<&str> = option_env!("CARGO_BIN_EXE_kiln");
    BINARY.get_or_init(|| BUILT.map(PathBuf::from).expect("cargo names the binary of a test"))
}

/// The static server, compiled once per process.
pub fn tiny() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let source = folder.join(format!("tiny-{}.c", std::process::id()));
        fs::write(&source, include_str!("fixtures/tiny.c")).expect("the target folder is writable");
        // Tests run as processes side by side: each builds its own and renames it over, so that none sees half a file.
        let (own, shared) = (folder.join(format!("tiny-{}", std::process::id())), folder.join("tiny"));
        let status =
            Command::new("cc").args(["-O2", "-static", "-pthread", "-o"]).arg(&own).arg(&source).status();
        assert!(status.expect("a C compiler is there").success(), "tiny.c compiles");
        fs::rename(&own, &shared)
            .and_then(|()| fs::remove_file(&source))
            .expect("the target folder is writable");
        shared
    })
}

/// An address of loopback that nothing listens on, reserved for as long as the socket lives: the same number for UDP, which
/// nobody else here wants, so that two tests never pick the same, in one process or in two.
fn free_address() -> (SocketAddr, UdpSocket) {
    let start = 20_000 + (std::process::id() % 4000) as u16 * 2;
    let free = |port: u16| {
        let reserved = UdpSocket::bind(("127.0.0.1", port)).ok()?;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| (port, reserved))
    };
    let (port, reserved) = (start..start + 200).find_map(free).expect("one of 200 ports is free");
    (SocketAddr::from(([127, 0, 0, 1], port)), reserved)
}

/// One GET with a connection of its own: the body of a 200, or what came instead.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Result<String, String> {
    get_with(address, host, path, "")
}

/// As [`get`], with more lines of the head, each with its end.
pub fn get_with(address: SocketAddr, host: &str, path: &str, head: &str) -> Result<String, String> {
    use std::io::{Read, Write};
    let fail = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, WITHIN).map_err(fail)?;
    stream.set_read_timeout(Some(WITHIN)).map_err(fail)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{head}Connection: close\r\n\r\n").map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fail)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no whole head: `{answer}`"))?;
    if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(answer) }
}

/// Polls until there is an answer, or fails the test.
#[track_caller]
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(begin.elapsed() < WITHIN, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that the test's Kiln started.
pub fn signal(pid: i32, number: i32) {
    let status = Command::new("kill").args([format!("-{number}"), pid.to_string()]).status();
    assert!(status.is_ok(), "kill can be run");
}

/// What a command came to.
pub fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code().or(output.status.signal().map(|_| -1)).unwrap_or(-1);
    Ran { code, out: text(output.stdout), err: text(output.stderr) }
}
