//! Bytes from a mirror: bounded in size, time, redirects and attempts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

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
pub(crate) const UNSIZED_BYTES_MAX: u64 = 4 << 30;

/// How long such a file may take. Its size is no measure, since it is not known.
const UNSIZED_TIMEOUT: Duration = Duration::from_secs(30 * 60);

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
        !matches!(self, Self::Unreachable { .. })
    }
}

/// Fetches from http, https and file URLs.
#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    agent: OnceLock<ureq::Agent>,
    cancel: Cancel,
}

impl Fetcher {
    pub(crate) fn new(cancel: Cancel) -> Self {
        Self { agent: OnceLock::new(), cancel }
    }

    /// Returns one that shares this one's connections and is called off by another switch.
    pub(crate) fn under(&self, cancel: Cancel) -> Self {
        Self { agent: self.agent.clone(), cancel }
    }

    /// Returns all bytes of a URL, at most `limit`.
    pub(crate) fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.retried(|| {
            let mut bytes = Vec::new();
            self.stream(url, limit, Path::new("memory"), &mut bytes)?;
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
        size: u64,
        digest: &Digest,
        path: &Path,
    ) -> Result<(), FetchError> {
        let done = self.retried(|| {
            let failed = |source| FetchError::Write { path: path.into(), source };
            let mut file = Hashing::new(File::create(path).map_err(failed)?);
            self.stream(url, size, path, &mut file)?;
            let (_, found) = file.finish();
            if found == *digest {
                return Ok(());
            }
            Err(FetchError::WrongHash { url: url.into(), expected: *digest, found })
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

    fn stream(&self, url: &str, limit: u64, path: &Path, sink: &mut dyn Write) -> Result<(), FetchError> {
        let mut source = self.open(url, limit)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut total = 0;
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
            let written = sink.write_all(&buffer[..count]);
            written.map_err(|source| FetchError::Write { path: path.into(), source })?;
        }
    }

    fn open(&self, url: &str, limit: u64) -> Result<Box<dyn Read>, FetchError> {
        if let Some(path) = url.strip_prefix("file:") {
            return open_file(url, path);
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(FetchError::BadUrl { url: url.into() });
        }
        let body_timeout = match limit {
            UNSIZED_BYTES_MAX => UNSIZED_TIMEOUT,
            promised => ANSWER_TIMEOUT + Duration::from_secs(promised / SLOWEST_BYTES_PER_SEC),
        };
        let request = self.agent.get_or_init(agent).get(url).config().timeout_recv_body(Some(body_timeout));
        match request.build().call() {
            Ok(response) => Ok(Box::new(response.into_body().into_reader())),
            Err(ureq::Error::StatusCode(404 | 410)) => Err(FetchError::Missing { url: url.into() }),
            Err(ureq::Error::BadUri(_)) => Err(FetchError::BadUrl { url: url.into() }),
            Err(error) => Err(FetchError::Unreachable { url: url.into(), source: Box::new(error) }),
        }
    }
}

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
        let error = Fetcher::default().download(&url, 5, &sha256(b"other"), &target).unwrap_err();
        assert!(matches!(error, FetchError::WrongHash { .. }), "{error}");
        assert!(!target.exists());
        Fetcher::default().download(&url, 5, &sha256(b"hello"), &target).unwrap();
        assert_eq!(std::fs::read(target).unwrap(), b"hello");
    }

    #[test]
    fn a_file_url_does_not_climb() {
        let error = Fetcher::default().get("file:///tmp/../etc/passwd", 1 << 20).unwrap_err();
        assert!(matches!(error, FetchError::BadUrl { .. }), "{error}");
    }
}
