//! A Git repository that is served over HTTP, as by git's own backend, or as a test serves it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// How somebody who came is answered.
pub(crate) type Answer = fn(TcpStream, &Path) -> std::io::Result<()>;

/// Serves the bare repository of a folder, and counts.
pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(folder: &Path, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, over, folder) = (asked.clone(), is_over.clone(), folder.to_owned());
        let thread = std::thread::spawn(move || {
            while let (Ok((stream, _)), false) = (listener.accept(), over.load(Ordering::SeqCst)) {
                counter.fetch_add(1, Ordering::SeqCst);
                // Whoever breaks off has seen enough.
                let _ = answer(stream, &folder);
            }
        });
        Self { address, asked, is_over, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/team/tool.git", self.address())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often anybody came.
    pub(crate) fn asked(&self) -> usize {
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

/// As git's backend for HTTP does.
fn answer_as_backend(stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut protocol, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("git-protocol") => protocol = value.into(),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap();
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let is_list = first.starts_with("GET ");
    let mut command = Command::new("git");
    command.args(["upload-pack", "--stateless-rpc"]).args(is_list.then_some("--http-backend-info-refs"));
    let mut child = command
        .arg(folder)
        .env("GIT_PROTOCOL", protocol)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().unwrap().write_all(&body)?;
    let said = child.wait_with_output()?.stdout;
    let (kind, head) = match is_list {
        true => ("advertisement", "001e# service=git-upload-pack\n0000"),
        false => ("result", ""),
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{head}",
        head.len() + said.len()
    )?;
    stream.write_all(&said)
}

/// A repository that is served.
pub(crate) struct Origin {
    folder: tempfile::TempDir,
    pub(crate) server: Server,
}

impl Origin {
    pub(crate) fn new() -> Self {
        Self::served(answer_as_backend)
    }

    /// One that is served in a way of its own.
    pub(crate) fn served(answer: Answer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(&folder.path().join("x/.git"), answer);
        let origin = Self { folder, server };
        std::fs::create_dir(origin.folder.path().join("x")).unwrap();
        origin.git(&["init", "--quiet", "--initial-branch=main", "--template="]);
        origin
    }

    pub(crate) fn git(&self, words: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(words).current_dir(self.folder.path().join("x"));
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@example.org");
        }
        let output = command.output().expect("these tests need git");
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("x").join(name)
    }

    /// Commits all there is, and returns the commit.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }
}
