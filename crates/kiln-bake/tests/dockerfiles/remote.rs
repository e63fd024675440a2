//! ADD of the files of URLs, from a server of this machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::fixture::causes;
use crate::kitchen::Kitchen;

/// Gives the same answer to everybody, and counts.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, over) = (asked.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while let (Ok((mut stream, _)), false) = (listener.accept(), over.load(Ordering::SeqCst)) {
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|count| count > 0) {
                    counter.fetch_add(1, Ordering::SeqCst);
                    // Whoever breaks off has seen enough.
                    let _ = stream.write_all(&answer);
                }
            }
        });
        Self { address, asked, is_over, thread: Some(thread) }
    }

    fn of_file(bytes: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
        Self::new([head.as_bytes(), bytes].concat())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It waits for somebody to come.
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn sum(bytes: &[u8]) -> String {
    kiln_store::canonical::digest_of(bytes).to_string()
}

#[test]
fn the_file_of_a_url_is_fetched_once_and_goes_where_buildkit_puts_it() {
    let (kitchen, server) = (Kitchen::new(), Server::of_file(b"#!/bin/sh\n"));
    let (url, sum) = (format!("http://{}", server.address), sum(b"#!/bin/sh\n"));
    let text = format!(
        "FROM os\nARG NAME=tool\nRUN mkdir /folder\n\
         ADD --checksum={sum} {url}/files/$NAME?version=1 /named/\n\
         ADD --checksum={sum} --chmod=755 --chown=1000:1001 {url}/tool /as/this\n\
         ADD --checksum={sum} {url} /folder\n"
    );
    let dish = kitchen.of(&text);
    assert_eq!(dish.text("named/tool"), "#!/bin/sh\n");
    assert_eq!([dish.meta("named/tool"), dish.meta("named")], ["600 0:0", "755 0:0"]);
    assert_eq!(dish.meta("as/this"), "755 1000:1001");
    assert!(dish.has("folder/__unnamed__"));
    assert_eq!(server.asked(), 1, "the same bytes are fetched once");
    let changed = kitchen.of(&text.replace("mkdir /folder", "mkdir -m 700 /folder"));
    assert_eq!(changed.meta("folder"), "700 0:0");
    // What was fetched is kept, as packages are: the server may be gone.
    assert_eq!(server.asked(), 1);
}

#[test]
fn an_archive_of_a_url_is_unpacked_only_if_that_is_said() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o640);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(100);
    builder.append_data(&mut header, "inside", &b"abc"[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    let (kitchen, server) = (Kitchen::new(), Server::of_file(&bytes));
    let url = format!("--checksum={} http://{}/a.tar", sum(&bytes), server.address);
    let dish = kitchen.of(&format!("FROM os\nADD {url} /kept/\nADD --unpack {url} /unpacked/\n"));
    assert!(dish.has("kept/a.tar") && !dish.has("kept/inside"));
    assert_eq!(
        (dish.text("unpacked/inside").as_str(), dish.meta("unpacked/inside").as_str()),
        ("abc", "640 7:8")
    );
}

#[test]
fn a_server_that_lies_breaks_off_or_sends_in_circles_gives_nothing() {
    let answer = |text: &str| Server::new(text.as_bytes().to_vec());
    let cases = [
        (Server::of_file(b"other bytes"), "is not what its checksum says"),
        (
            answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\ncut"),
            "can't be reached",
        ),
        (
            answer("HTTP/1.1 302 Go\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            "can't be reached",
        ),
        (answer("HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), "is not there"),
        (answer("<html>"), "can't be reached"),
    ];
    // Side by side: who can't be reached is asked again, after a pause.
    std::thread::scope(|scope| {
        for (server, expected) in &cases {
            scope.spawn(move || refuses(server, expected));
        }
    });
}

fn refuses(server: &Server, expected: &str) {
    let kitchen = Kitchen::new();
    let url = format!("http://{}/x", server.address);
    let refused =
        kitchen.refused(&format!("FROM os\nRUN true\nADD --checksum={} {url} /x\n", sum(b"promised")));
    assert!(refused.contains(&format!("web/Dockerfile:3: `{url}` ")), "{refused}");
    assert!(refused.contains(expected), "{expected}: {refused}");
}

#[test]
fn the_file_of_a_url_without_a_checksum_is_what_was_locked() {
    let kitchen = Kitchen::new();
    let server = Server::of_file(b"first");
    let (one, url) = (format!("http://{}/v1/tool", server.address), format!("http://{}", server.address));
    // Variables of a stage that it starts from are known; those of stages that the target does not need are not fetched.
    let text = format!(
        "ARG V=v1\nFROM os AS unused\nADD {url}/never /x\nFROM os AS first\nARG V\nENV NAME=tool\nONBUILD ADD {url}/trigger /\n\
         FROM first\nARG V=v1\nADD --chmod=755 {url}/$V/$NAME {url}/other /\nADD --checksum={} {url}/sum /\n",
        sum(b"first")
    );
    kitchen.write("web/Dockerfile", &text);
    let lock = kitchen.lock(None, false).unwrap();
    let names: Vec<&String> = lock.urls.keys().collect();
    assert_eq!(names, [&format!("{url}/other"), &format!("{url}/trigger"), &one]);
    assert_eq!(lock.urls[&one].to_string(), sum(b"first"));
    let dish = kitchen.bake_locked(&lock).unwrap();
    assert_eq!([dish.text("tool"), dish.text("other"), dish.text("trigger"), dish.text("sum")], ["first"; 4]);
    assert_eq!(dish.meta("tool"), "755 0:0");
    let asked = server.asked();
    // Nothing is asked again, until it is to be moved.
    assert_eq!(kitchen.lock(Some(&lock), false).unwrap(), lock);
    kitchen.bake_locked(&lock).unwrap();
    assert_eq!(server.asked(), asked);
    assert_eq!(kitchen.lock(Some(&lock), true).unwrap(), lock);
    assert_eq!(server.asked(), asked + 3);
}

#[test]
fn a_file_that_changed_since_it_was_locked_is_refused_at_its_line() {
    let kitchen = Kitchen::new();
    let server = Server::of_file(b"second");
    let url = format!("http://{}/tool", server.address);
    kitchen.write("web/Dockerfile", &format!("FROM os\nRUN true\nADD {url} /tool\n"));
    let mut lock = kiln_bake::Lock::default();
    lock.urls.insert(url.clone(), sum(b"first").parse().unwrap());
    let error = kitchen.bake_locked(&lock).unwrap_err();
    let said = causes(&error);
    assert!(said.contains(&format!("web/Dockerfile:3: `{url}` is not what kiln.lock says")), "{said}");
    assert!(error.hint().unwrap().contains("kiln lock --upgrade"));
    let missing = Server::new(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec());
    kitchen.write("web/Dockerfile", &format!("FROM os\nADD http://{}/tool /tool\n", missing.address));
    let said = causes(&kitchen.lock(None, false).unwrap_err());
    assert!(said.contains("cannot lock the file of") && said.contains("is not there"), "{said}");
}
