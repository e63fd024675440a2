//! Bytes from a mirror: bounded in size, time, redirects and attempts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::hashing::{COPY_BYTES, Hashing, sha256};
use crate::names::RememberedNames;
use kiln_model::Digest;

/// As many as a browser would follow for a chain of mirror redirectors, with room to spare.
const REDIRECTS_MAX: u32 = 5;

/// A mirror that does not answer thrice is away.
const ATTEMPTS_MAX: u32 = 3;

/// As many connections as a polite client opens to one mirror. Each is kept for the next file.
pub(crate) const CONNECTIONS_MAX: usize = 8;

/// Before the second attempt; doubled before the next.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Long enough for a SYN to be sent again twice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A mirror may have to read a cold disk, but not for longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The slowest line that is waited for, in bytes a second.
const SLOWEST_BYTES_PER_SEC: u64 = 20_000;

/// The largest file of a URL whose size nobody promised: the largest toolchains have less, and it has to fit beside the image.
const UNSIZED_BYTES_MAX: u64 = 4 << 30;

/// How long such a file may take. Its size is no measure, since it is not known.
const UNSIZED_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The longest that a server may say nothing in the middle of a file: a busy one does, for less.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How much a URL may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Somebody who is believed says how much it is, or that it is no more.
    Promised(u64),
    /// Nobody does; it may have so much.
    Unknown(u64),
}

impl Length {
    /// What nobody promised.
    pub(crate) const UNSIZED: Self = Self::Unknown(UNSIZED_BYTES_MAX);

    /// No more is read.
    fn limit(self) -> u64 {
        match self {
            Self::Promised(bytes) | Self::Unknown(bytes) => bytes,
        }
    }

    /// No longer is waited for the end of it.
    fn timeout(self) -> Duration {
        match self {
            Self::Promised(bytes) => ANSWER_TIMEOUT + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SEC),
            Self::Unknown(_) => UNSIZED_TIMEOUT,
        }
    }

    /// No longer may it have taken until so many bytes are there: whoever sends them one by one is not waited for.
    fn patience(received: u64, silence: Duration) -> Duration {
        silence + Duration::from_secs(received / SLOWEST_BYTES_PER_SEC)
    }
}

/// Why bytes did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The mirror answers, but does not have it.
    #[error("{url} is not there")]
    Missing {
        /// What was asked for.
        url: String,
    },
    /// The mirror does not answer, or breaks off.
    #[error("{url} can't be reached")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is larger than it may be.
    #[error("{url} has more than the {limit} bytes that it may have")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// It comes more slowly than anybody waits for.
    #[error("{url} comes too slowly: {received} bytes in {waited:?}")]
    Slow {
        /// What was asked for.
        url: String,
        /// What came.
        received: u64,
        /// Within this time.
        waited: Duration,
    },
    /// The server sends a page for people where a file is expected, as for a login.
    #[error("{url} gives a web page, and not the file of that name")]
    Page {
        /// What was asked for.
        url: String,
    },
    /// The bytes are not the promised ones.
    #[error("{url} is not what the index promised: expected {expected}, got {found}")]
    WrongHash {
        /// What was asked for.
        url: String,
        /// The promise.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The URL is of no kind that is understood.
    #[error("`{url}` is not an http, https or file URL")]
    BadUrl {
        /// The URL.
        url: String,
    },
    /// The bytes can't be kept.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl FetchError {
    /// Whether another attempt would fail again.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::Slow { .. })
    }
}

/// Fetches from http, https and file URLs.
#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    agent: OnceLock<ureq::Agent>,
    cancel: Cancel,
    /// How long nothing may come.
    silence: Silence,
}

/// How long nothing may come.
#[derive(Debug, Clone, Copy)]
struct Silence(Duration);

impl Default for Silence {
    fn default() -> Self {
        Self(SILENCE_MAX)
    }
}

impl Fetcher {
    pub(crate) fn new(cancel: Cancel) -> Self {
        Self { cancel, ..Self::default() }
    }

    /// Returns one that shares this one's connections and is called off by another switch.
    pub(crate) fn under(&self, cancel: Cancel) -> Self {
        Self { agent: self.agent.clone(), cancel, silence: self.silence }
    }

    /// Returns all bytes of a URL, at most `limit`.
    pub(crate) fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.retried(|| {
            let mut bytes = Vec::new();
            self.stream(url, Length::Promised(limit), Path::new("memory"), &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Returns the bytes of a URL that must hash to `digest`.
    pub(crate) fn get_verified(&self, url: &str, size: u64, digest: &Digest) -> Result<Vec<u8>, FetchError> {
        let bytes = self.get(url, size)?;
        let found = sha256(&bytes);
        if found == *digest {
            return Ok(bytes);
        }
        Err(FetchError::WrongHash { url: url.into(), expected: *digest, found })
    }

    /// Writes the bytes of a URL that must hash to `digest` to a new file at `path`. On failure there is no file.
    pub(crate) fn download(
        &self,
        url: &str,
        length: Length,
        digest: &Digest,
        path: &Path,
    ) -> Result<(), FetchError> {
        let found = self.to_file(url, length, path)?;
        if found == *digest {
            return Ok(());
        }
        let _ = std::fs::remove_file(path);
        Err(FetchError::WrongHash { url: url.into(), expected: *digest, found })
    }

    /// Writes the bytes of a URL, whatever they are, to a new file at `path`, and returns their digest. On failure there is no file.
    pub(crate) fn to_file(&self, url: &str, length: Length, path: &Path) -> Result<Digest, FetchError> {
        let done = self.retried(|| {
            let failed = |source| FetchError::Write { path: path.into(), source };
            let mut file = Hashing::new(File::create(path).map_err(failed)?);
            self.stream(url, length, path, &mut file)?;
            Ok(file.finish().1)
        });
        if done.is_err() {
            let _ = std::fs::remove_file(path);
        }
        done
    }

    fn retried<T>(&self, attempt: impl Fn() -> Result<T, FetchError>) -> Result<T, FetchError> {
        let mut pause = RETRY_PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            match attempt() {
                Err(error) if !error.is_permanent() => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                done => return done,
            }
        }
        attempt()
    }

    fn stream(&self, url: &str, length: Length, path: &Path, sink: &mut dyn Write) -> Result<(), FetchError> {
        let limit = length.limit();
        let mut source = self.open(url, length)?;
        let mut buffer = vec![0; COPY_BYTES];
        let (mut total, began) = (0, Instant::now());
        loop {
            if self.cancel.is_set() {
                return Err(FetchError::Cancelled);
            }
            let count = match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(FetchError::Unreachable { url: url.into(), source: Box::new(error) });
                }
            };
            total += count as u64;
            if total > limit {
                return Err(FetchError::TooLarge { url: url.into(), limit });
            }
            let waited = began.elapsed();
            if waited > Length::patience(total, self.silence.0) {
                return Err(FetchError::Slow { url: url.into(), received: total, waited });
            }
            let written = sink.write_all(&buffer[..count]);
            written.map_err(|source| FetchError::Write { path: path.into(), source })?;
        }
    }

    fn open(&self, url: &str, length: Length) -> Result<Box<dyn Read>, FetchError> {
        if let Some(path) = url.strip_prefix("file:") {
            return open_file(url, path);
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(FetchError::BadUrl { url: url.into() });
        }
        let request = self.agent.get_or_init(agent).get(url).config();
        let request =
            request.timeout_recv_body(Some(length.timeout())).timeout_per_read(Some(self.silence.0)).build();
        match request.call() {
            Ok(response) => {
                // Nobody's word is needed for what nobody can keep.
                if response.body().content_length().is_some_and(|said| said > length.limit()) {
                    return Err(FetchError::TooLarge { url: url.into(), limit: length.limit() });
                }
                if matches!(length, Length::Unknown(_)) && is_page(&response, url) {
                    return Err(FetchError::Page { url: url.into() });
                }
                Ok(Box::new(response.into_body().into_reader()))
            }
            Err(ureq::Error::StatusCode(404 | 410)) => Err(FetchError::Missing { url: url.into() }),
            Err(ureq::Error::BadUri(_)) => Err(FetchError::BadUrl { url: url.into() }),
            Err(error) => Err(FetchError::Unreachable { url: url.into(), source: Box::new(error) }),
        }
    }
}

/// Whether this is a page although the name is that of another file. Without an extension a name says nothing.
fn is_page(response: &ureq::http::Response<ureq::Body>, url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let extension =
        name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
    let is_other = extension.is_some_and(|it| !PAGE_EXTENSIONS.contains(&it.to_ascii_lowercase().as_str()));
    is_other && response.body().mime_type().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
}

/// What the names of pages end with.
const PAGE_EXTENSIONS: [&str; 7] = ["html", "htm", "xhtml", "php", "asp", "aspx", "jsp"];

fn open_file(url: &str, path: &str) -> Result<Box<dyn Read>, FetchError> {
    let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
    // The path below the root comes out of an index: a signed one, but then its signer need not own this machine.
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(FetchError::BadUrl { url: url.into() });
    }
    match File::open(&path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FetchError::Missing { url: url.into() }),
        Err(error) => Err(FetchError::Unreachable { url: url.into(), source: Box::new(error) }),
    }
}

/// What OpenSSL's `SSL_CERT_FILE` defaults to on Debian: an https mirror with a company's own authority works as in apt.
const CERTIFICATES_PATH: &str = "/etc/ssl/certs/ca-certificates.crt";

fn agent() -> ureq::Agent {
    let mut tls = ureq::tls::TlsConfig::builder();
    let path = std::env::var_os("SSL_CERT_FILE").map_or_else(|| CERTIFICATES_PATH.into(), PathBuf::from);
    if let Ok(pem) = std::fs::read(path) {
        let roots: Vec<_> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if !roots.is_empty() {
            tls = tls.root_certs(ureq::tls::RootCerts::from(roots));
        }
    }
    let config = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .max_redirects(REDIRECTS_MAX)
        .max_idle_connections_per_host(CONNECTIONS_MAX)
        .max_idle_connections(4 * CONNECTIONS_MAX)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .build();
    let connector = ureq::unversioned::transport::DefaultConnector::default();
    ureq::Agent::with_parts(config, connector, RememberedNames::default())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves each connection one canned answer, in order.
    fn server(answers: Vec<&'static [u8]>) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            }
        });
        (root, thread)
    }

    #[test]
    fn a_broken_answer_is_tried_again() {
        let (root, thread) = server(vec![
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        ]);
        assert_eq!(Fetcher::default().get(&format!("{root}/x"), 100).unwrap(), b"hello");
        thread.join().unwrap();
    }

    #[test]
    fn what_is_not_there_is_not_asked_for_twice() {
        let (root, thread) =
            server(vec![b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]);
        let error = Fetcher::default().get(&format!("{root}/x"), 100).unwrap_err();
        assert!(matches!(error, FetchError::Missing { .. }), "{error}");
        thread.join().unwrap();
    }

    #[test]
    fn more_bytes_than_promised_are_refused() {
        let (root, thread) =
            server(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"]);
        let error = Fetcher::default().get(&format!("{root}/x"), 4).unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { limit: 4, .. }), "{error}");
        thread.join().unwrap();
    }

    #[test]
    fn redirects_in_a_circle_end() {
        let answer: &[u8] =
            b"HTTP/1.1 302 Go\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let (root, _thread) = server(vec![answer; 40]);
        assert!(Fetcher::default().get(&format!("{root}/x"), 100).is_err());
    }

    #[test]
    fn a_download_with_a_wrong_hash_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "hello").unwrap();
        let url = format!("file://{}/a", folder.path().display());
        let target = folder.path().join("b");
        let error =
            Fetcher::default().download(&url, Length::Promised(5), &sha256(b"other"), &target).unwrap_err();
        assert!(matches!(error, FetchError::WrongHash { .. }), "{error}");
        assert!(!target.exists());
        Fetcher::default().download(&url, Length::Promised(5), &sha256(b"hello"), &target).unwrap();
        assert_eq!(std::fs::read(target).unwrap(), b"hello");
    }

    /// Not long, for whoever will say no more in any case, and longer than a busy machine makes this side wait for its turn: what
    /// was said is read within it.
    const HASTY: Duration = Duration::from_secs(1);

    /// What an answer comes to.
    fn refused(
        answer: impl Fn(&mut std::net::TcpStream) + Send + 'static,
        length: Length,
        silence: Duration,
    ) -> FetchError {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let root = format!("http://{}/file.tar", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            for _ in 0..ATTEMPTS_MAX {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let _ = stream.read(&mut [0; 4096]);
                if stream.peer_addr().is_ok() {
                    answer(&mut stream);
                }
            }
        });
        let fetcher = Fetcher { silence: Silence(silence), ..Fetcher::default() };
        let folder = tempfile::tempdir().unwrap();
        let error = fetcher.to_file(&root, length, &folder.path().join("x")).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing of it stays");
        if !error.is_permanent() {
            thread.join().unwrap();
        }
        error
    }

    /// Waits until the other side has had enough.
    fn until_left(stream: &mut std::net::TcpStream) {
        let _ = stream.read(&mut [0; 1]);
    }

    #[test]
    fn a_server_that_falls_silent_is_left() {
        let silent = |said: &'static str| {
            let answer = move |stream: &mut std::net::TcpStream| {
                let _ = stream.write_all(said.as_bytes());
                until_left(stream);
            };
            let error = refused(answer, Length::UNSIZED, HASTY);
            assert!(matches!(error, FetchError::Unreachable { .. }), "{said}: {error}");
        };
        // Side by side, since each is asked again after a pause.
        std::thread::scope(|scope| {
            for said in ["", "HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"]
            {
                scope.spawn(move || silent(said));
            }
        });
    }

    #[test]
    fn a_server_that_sends_byte_by_byte_is_left() {
        let error = refused(
            |stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
                // It ends when the other side has left.
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            },
            Length::UNSIZED,
            HASTY,
        );
        // A busy machine may make a pause of the server's long enough to be silence.
        assert!(matches!(error, FetchError::Slow { .. } | FetchError::Unreachable { .. }), "{error}");
    }

    #[test]
    fn a_body_without_end_and_one_that_says_it_is_too_long_are_refused() {
        let endless = |stream: &mut std::net::TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[0; 4096]).is_ok() {}
        };
        let error = refused(endless, Length::Unknown(100_000), SILENCE_MAX);
        assert!(matches!(error, FetchError::TooLarge { limit: 100_000, .. }), "{error}");
        let boasting = |stream: &mut std::net::TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n");
            until_left(stream);
        };
        let error = refused(boasting, Length::Unknown(100_000), SILENCE_MAX);
        assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_page_is_not_taken_for_a_file_of_another_kind() {
        let page: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>";
        for (name, is_taken) in [("tool.tar.gz", false), ("index.html", true), ("install", true)] {
            let (root, thread) = server(vec![page]);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            let done =
                Fetcher::default().to_file(&format!("{root}/v1.2/{name}?x=a.tar"), Length::UNSIZED, &path);
            assert_eq!(done.is_ok(), is_taken, "{name}: {done:?}");
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_file_url_does_not_climb() {
        let error = Fetcher::default().get("file:///tmp/../etc/passwd", 1 << 20).unwrap_err();
        assert!(matches!(error, FetchError::BadUrl { .. }), "{error}");
    }
}
