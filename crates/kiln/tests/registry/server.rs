//! A registry in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::http::{Answer, Client};

/// A running registry with a folder of its own; killed when dropped.
pub(crate) struct Registry {
    child: Child,
    pub(crate) client: Client,
    folder: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(words: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("kiln-registry-").tempdir_in("/var/tmp").unwrap();
        let (child, client) = spawn(&folder.path().join("root"), words);
        Self { child, client, folder }
    }

    /// One whose folder is a disk of its own, which is soon full.
    pub(crate) fn with_disk(size: &str) -> (Self, Disk) {
        let disk = Disk::mount(size);
        let folder = tempfile::tempdir_in(disk.0.path()).unwrap();
        let (child, client) = spawn(&folder.path().join("root"), &[]);
        (Self { child, client, folder }, disk)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// Ends it as a power failure would, and starts another one in its folder.
    pub(crate) fn kill_and_start_again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.client) = spawn(&self.root(), &[]);
    }

    /// Asks it to end, and returns its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Files below a part of its folder.
    pub(crate) fn files(&self, part: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.root().join(part), &mut found);
        found
    }
}

impl std::ops::Deref for Registry {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small file system; gone with the value.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("kiln-registry-disk-").tempdir_in("/var/tmp").unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).status().unwrap();
        assert!(status.success(), "{mount:?}");
        Self(folder)
    }

    /// Fills it but for some bytes; removing the file makes room again.
    pub(crate) fn fill_but(&self, bytes: u64) -> PathBuf {
        let path = self.0.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let error = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: who has a file open there ends in a moment.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

pub(crate) fn command(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"]).arg(root).args(words);
    command
}

fn spawn(root: &Path, words: &[&str]) -> (Child, Client) {
    let mut child = command(root, words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit_once("://").unwrap_or_else(|| panic!("it said {line:?}")).1;
    (child, Client::new(address.parse().unwrap()))
}

/// What several tests do.
impl Client {
    /// Pushes a blob in one request, and returns its digest.
    pub(crate) fn push(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let answer =
            self.send("POST", &format!("/v2/{repository}/blobs/uploads/?digest={digest}"), &[], bytes);
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Begins an upload, and returns where it is.
    pub(crate) fn begin(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").to_owned()
    }

    /// Sends a chunk.
    pub(crate) fn chunk(&self, upload: &str, first: usize, bytes: &[u8]) -> Answer {
        let range = format!("{first}-{}", first + bytes.len() - 1);
        self.send("PATCH", upload, &[("Content-Range", &range)], bytes)
    }

    /// Pushes a manifest of the given JSON, by tag or by digest.
    pub(crate) fn put_manifest(&self, repository: &str, reference: &str, text: &str) -> Answer {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let kind = value["mediaType"].as_str().unwrap().to_owned();
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &path, &[("Content-Type", &kind)], text.as_bytes())
    }

    /// Pushes an image with one layer under a tag, and returns its manifest.
    pub(crate) fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> String {
        self.push(repository, b"{}");
        self.push(repository, layer);
        let text = image(layer, &serde_json::json!({}));
        let answer = self.put_manifest(repository, tag, &text);
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("docker-content-digest"), sha256(text.as_bytes()));
        text
    }
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest with the config `{}` and one layer, and with what else is given.
pub(crate) fn image(layer: &[u8], more: &serde_json::Value) -> String {
    let mut manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    for (key, value) in more.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    manifest.to_string()
}

pub(crate) fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({ "mediaType": kind, "digest": sha256(bytes), "size": bytes.len() })
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    kiln_registry::digest::ContentDigest::of(kiln_registry::digest::Algorithm::Sha256, bytes).to_string()
}

pub(crate) fn sha512(bytes: &[u8]) -> String {
    kiln_registry::digest::ContentDigest::of(kiln_registry::digest::Algorithm::Sha512, bytes).to_string()
}
