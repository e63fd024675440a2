//! `kiln registry serve` beside Debian's docker-registry: the same client pushes and pulls an image with one large layer.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::table::Table;
use super::{installed, machine, median};

/// The layer.
const BYTES: usize = 500 << 20;

/// Pushes and pulls of each registry, taken in turn: the disk is not the same from one minute to the next.
const ROUNDS: usize = 5;

/// A registry that does not listen after so many tenths of a second has failed.
const WAITS_MAX: usize = 100;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let folder = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
    let image = Image::make(folder.path())?;
    let ours = Registry::kiln(&folder.path().join("kiln"))?;
    let theirs = if installed("docker-registry") {
        Some(Registry::docker(&folder.path().join("docker"))?)
    } else {
        None
    };
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..ROUNDS {
        for (at, registry) in [Some(&ours), theirs.as_ref()].into_iter().flatten().enumerate() {
            let name = format!("bench/round{round}");
            times[at].push(timed(|| image.push(registry, &name))?);
            times[at + 2].push(timed(|| image.pull(registry, &name))?);
        }
    }
    let [push, their_push, pull, their_pull] = times.map(median);
    let beside = |time| theirs.as_ref().map(|_| ("docker-registry", time));
    table.row("a registry takes a 500 MB layer", push, beside(their_push));
    table.row("… and gives it", pull, beside(their_pull));
    let peak = theirs.as_ref().map(|registry| registry.peak()).transpose()?;
    table.fact("… its memory at the most", ours.peak()?, peak);
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

/// A layer in a file, and what else an image has.
struct Image {
    layer: std::path::PathBuf,
    digest: String,
    config: String,
    manifest: String,
}

impl Image {
    fn make(folder: &Path) -> Result<Self, String> {
        let layer = folder.join("layer");
        let failed = |error: io::Error| error.to_string();
        let mut file = File::create(&layer).map_err(failed)?;
        // What does not compress: xorshift (Marsaglia, 2003).
        let mut state = 88_172_645_463_325_252_u64;
        let mut piece = vec![0; 1 << 20];
        for _ in 0..BYTES / piece.len() {
            for word in piece.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            file.write_all(&piece).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        let digest = sha256(&layer)?;
        let empty = folder.join("config");
        fs::write(&empty, "{}").map_err(failed)?;
        let config = sha256(&empty)?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": BYTES }],
        });
        Ok(Self { layer, digest, config, manifest: manifest.to_string() })
    }

    fn push(&self, registry: &Registry, name: &str) -> Result<(), String> {
        let layer = File::open(&self.layer).map_err(|error| error.to_string())?;
        registry.upload(name, &self.digest, BYTES, layer)?;
        registry.upload(name, &self.config, 2, &b"{}"[..])?;
        let path = format!("/v2/{name}/manifests/v1");
        let length = self.manifest.len();
        registry.send("PUT", &path, MANIFEST, length, self.manifest.as_bytes(), 201)?;
        Ok(())
    }

    fn pull(&self, registry: &Registry, name: &str) -> Result<(), String> {
        let path = format!("/v2/{name}/manifests/v1");
        registry.send("GET", &path, "", 0, io::empty(), 200)?;
        let layer =
            registry.send("GET", &format!("/v2/{name}/blobs/{}", self.digest), "", 0, io::empty(), 200)?;
        if layer.length == BYTES { Ok(()) } else { Err(format!("{} bytes came back", layer.length)) }
    }
}

fn sha256(path: &Path) -> Result<String, String> {
    let output = Command::new("sha256sum").arg(path).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hex = text.split(' ').next().filter(|hex| hex.len() == 64);
    hex.map(|hex| format!("sha256:{hex}")).ok_or_else(|| "sha256sum failed".into())
}

/// What was answered. The body is read and thrown away.
struct Answer {
    location: Option<String>,
    length: usize,
}

/// A running registry; ended with the value.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn kiln(root: &Path) -> Result<Self, String> {
        let binary = machine::BINARY.get().ok_or("the binary was built")?;
        let mut child = Command::new(binary)
            .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
            .arg(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("its output was asked for")?;
        BufReader::new(out).read_line(&mut line).map_err(|error| error.to_string())?;
        let address = line.trim().rsplit_once("://").map(|(_, address)| address.to_owned());
        let address = address.ok_or_else(|| format!("kiln registry said {line:?}"))?;
        Ok(Self { child, address })
    }

    fn docker(root: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| error.to_string();
        fs::create_dir_all(root).map_err(failed)?;
        let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = free.local_addr().map_err(failed)?.to_string();
        drop(free);
        let config = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            root.display()
        );
        let file = root.join("config.yml");
        fs::write(&file, config).map_err(failed)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let registry = Self { child, address };
        for _ in 0..WAITS_MAX {
            if TcpStream::connect(&registry.address).is_ok() {
                return Ok(registry);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("docker-registry does not listen".into())
    }

    /// One upload as docker does it: begun, sent as one chunk, finished.
    fn upload(&self, name: &str, digest: &str, length: usize, content: impl Read) -> Result<(), String> {
        let begun = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), "", 0, io::empty(), 202)?;
        let at = begun.location.ok_or("an upload is somewhere")?;
        let sent = self.send("PATCH", &at, "application/octet-stream", length, content, 202)?;
        let at = sent.location.unwrap_or(at);
        let joint = if at.contains('?') { '&' } else { '?' };
        self.send("PUT", &format!("{at}{joint}digest={digest}"), "", 0, io::empty(), 201)?;
        Ok(())
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        length: usize,
        mut content: impl Read,
        expected: u16,
    ) -> Result<Answer, String> {
        let failed = |error: io::Error| format!("{method} {path}: {error}");
        // A location may be a whole address.
        let path = path.strip_prefix(&format!("http://{}", self.address)).unwrap_or(path);
        let mut stream = TcpStream::connect(&self.address).map_err(failed)?;
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: {MANIFEST}\r\n{kind}Content-Length: {length}\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).map_err(failed)?;
        let mut piece = vec![0; 1 << 20];
        loop {
            match content.read(&mut piece).map_err(failed)? {
                0 => break,
                count => stream.write_all(&piece[..count]).map_err(failed)?,
            }
        }
        let mut reader = BufReader::with_capacity(1 << 20, stream);
        let (mut status, mut location) = (0, None);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).map_err(failed)?;
            let line = line.trim_end();
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("location") => {
                    location = Some(value.to_owned())
                }
                Some(_) => {}
                None if line.is_empty() => break,
                None => status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0),
            }
        }
        let mut length = 0;
        loop {
            match reader.read(&mut piece).map_err(failed)? {
                0 => break,
                count => length += count,
            }
        }
        if status == expected {
            Ok(Answer { location, length })
        } else {
            Err(format!("{method} {path}: {status}"))
        }
    }

    /// The most memory that it had at once.
    fn peak(&self) -> Result<String, String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.map_err(|error| error.to_string())?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(format!("{} MiB", kib.ok_or("a process has a peak")? >> 10))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
