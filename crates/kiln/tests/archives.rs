//! Archives of every kind of badness through the real binary, from a small archive of the tests' own served on loopback.
//!
//! They need root. The binary knows no keyring but Debian's, so each command runs in a mount namespace of its own where the
//! archive's keyring lies over it.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "../../kiln-bake/tests/fixture/archive.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod archive;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use archive::{TestArchive, TestPackage, file, package, tiny};

/// An archive, the server of its files, and a stack with a base from it.
struct World {
    folder: tempfile::TempDir,
    archive: TestArchive,
    server: Server,
}

/// Serves a folder over HTTP until it is dropped.
struct Server {
    url: String,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mirror", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                // A client that goes away is its own business.
                let _ = connection.and_then(|connection| answer(connection, &root));
            }
        };
        Self { url, stop, thread: Some(std::thread::spawn(serve)) }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap().strip_suffix("/mirror").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.address());
        let _ = self.thread.take().unwrap().join();
    }
}

fn answer(connection: TcpStream, root: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let (status, body) = match fs::read(root.join(path)) {
        Ok(bytes) => ("200 OK", bytes),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let mut connection = reader.into_inner();
    let length = body.len();
    write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    connection.write_all(&body)
}

/// What a command did: its exit code and what it said on stderr.
struct Ran(i32, String);

impl Ran {
    #[track_caller]
    fn ok(self) {
        assert_eq!(self.0, 0, "{}", self.1);
    }

    /// It failed for something outside, and said all of this.
    #[track_caller]
    fn fails_with(self, says: &[&str]) {
        assert_eq!(self.0, 5, "{}", self.1);
        let missing: Vec<_> = says.iter().filter(|text| !self.1.contains(**text)).collect();
        assert!(missing.is_empty(), "{missing:?} is not in\n{}", self.1);
        assert!(self.1.contains("\n  cause: "), "{}", self.1);
    }
}

impl World {
    fn new(packages: &[TestPackage]) -> Self {
        let folder = tempfile::Builder::new().prefix("kiln-archive-").tempdir_in("/var/tmp").unwrap();
        let archive = TestArchive::new(folder.path());
        archive.publish(packages, |release| release);
        fs::create_dir(folder.path().join("stack")).unwrap();
        let server = Server::start(folder.path().to_owned());
        let world = Self { folder, archive, server };
        world.write_stack("hello");
        world
    }

    fn write_stack(&self, wanted: &str) {
        let url = &self.server.url;
        let text = format!(
            "stack \"demo\" {{}}\n\nbase \"debian\" \"slim\" {{\n  suite    = \"bookworm\"\n  mirror   = \"{url}\"\n  \
             packages = [\"{wanted}\"]\n}}\n\nimage \"web\" {{\n  from    = base.debian.slim\n  command = [\"/bin/sh\"]\n}}\n"
        );
        fs::write(self.stack().join("stack.hcl"), text).unwrap();
    }

    fn stack(&self) -> PathBuf {
        self.folder.path().join("stack")
    }

    fn kiln(&self, words: &[&str]) -> Ran {
        const OVER: &str =
            "mount --bind \"$0\" /usr/share/keyrings/debian-archive-keyring.gpg && exec \"$@\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", OVER])
            .arg(&self.archive.keyring)
            .arg(env!("CARGO_BIN_EXE_kiln"))
            .args(words)
            .current_dir(self.stack())
            .env("KILN_STATE", self.folder.path().join("state"))
            .output()
            .unwrap();
        Ran(output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn small() -> Vec<TestPackage> {
    vec![
        package("tiny", "1", "Essential: yes\n", vec![]),
        package("hello", "2.1", "", vec![file("./usr/share/hello", "hi")]),
    ]
}

#[test]
fn a_package_that_does_not_exist_is_named_with_what_was_meant() {
    let world = World::new(&small());
    world.write_stack("helo");
    let says = ["cannot lock base `slim`", "no package `helo` in bookworm", "hint:  did you mean `hello`?"];
    world.kiln(&["lock"]).fails_with(&says);
    assert!(!world.stack().join("kiln.lock").exists(), "nothing was locked");
}

#[test]
fn a_mirror_that_is_away_is_named_and_what_was_fetched_needs_none() {
    let mut packages = small();
    packages[0] = tiny();
    let mut world = World::new(&packages);
    world.kiln(&["bake"]).ok();
    let away = world.server.url.clone();
    // The port is closed from here on.
    world.server = Server::start(world.folder.path().join("nothing"));
    world.kiln(&["bake"]).ok();
    let stack = fs::read_to_string(world.stack().join("stack.hcl")).unwrap();
    assert!(stack.contains(&away));
    world.kiln(&["lock", "--upgrade"]).fails_with(&[&away, "can't be reached", "hint:  check the network"]);
}

#[test]
fn an_index_that_nobody_signed_or_that_is_too_old_is_refused() {
    let world = World::new(&small());
    let signed = fs::read_to_string(world.archive.in_release()).unwrap();
    let body = signed.split("\n\n").nth(1).unwrap().split("-----BEGIN PGP SIGNATURE").next().unwrap();
    fs::write(world.archive.in_release(), body).unwrap();
    world.kiln(&["lock"]).fails_with(&[
        "InRelease",
        "is not signed",
        "hint:  the mirror is not to be trusted",
    ]);
    let expired = |release| format!("Valid-Until: Sat, 18 Jul 2026 10:16:37 UTC\n{release}");
    world.archive.publish(&small(), expired);
    world.kiln(&["lock"]).fails_with(&[
        "expired on 2026-07-18T10:16:37Z",
        "hint:  ",
        "set `mirror` to another",
    ]);
    world.archive.publish(&small(), |release| release);
    world.kiln(&["lock"]).ok();
}

#[test]
fn a_mirror_that_serves_other_bytes_than_promised_is_refused() {
    let mut packages = small();
    packages[0] = tiny();
    let world = World::new(&packages);
    let list = world.archive.root.join(format!("dists/bookworm/main/binary-{}/Packages.xz", archive::ARCH));
    flip_last_byte(&list);
    world.kiln(&["lock"]).fails_with(&["is not what the index promised", "hint:  "]);
    flip_last_byte(&list);
    world.kiln(&["lock"]).ok();
    let deb = world.archive.root.join(format!("pool/hello_2.1_{}.deb", archive::ARCH));
    flip_last_byte(&deb);
    let says = [
        "package `hello` can't be fetched",
        "hint:  the mirror serves other bytes than those that were locked",
    ];
    world.kiln(&["bake"]).fails_with(&says);
    flip_last_byte(&deb);
    world.kiln(&["bake"]).ok();
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}
