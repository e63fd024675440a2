//! The clients that Debian has, pushing, pulling and running. One that is not installed is skipped with a line that says so,
//! but where `KILN_PEERS=required` says that all are there, as in CI.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::server::{INDEX, MANIFEST, Registry, descriptor, sha256};

pub(crate) fn is_installed(program: &str) -> bool {
    // Not by what it says of `--version`, which openssl does not know.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) || skipped(program)
}

/// Says that a test is skipped for want of a program, and fails where none may be missing.
pub(crate) fn skipped(program: &str) -> bool {
    assert!(
        !std::env::var("KILN_PEERS").is_ok_and(|peers| peers == "required"),
        "{program} is not installed"
    );
    println!("skipped: {program} is not installed");
    false
}

#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Writes an `oci-layout` folder with one image, made with Debian's tar and gzip, and returns its manifest.
pub(crate) fn layout(folder: &Path) -> Vec<u8> {
    layout_of(folder, &json!(["/data"]), |_| ())
}

/// What an instance of [`runnable_layout`] says.
const GREETING: &str = "said by an instance";

/// The same for an image that says its greeting.
fn runnable_layout(folder: &Path) -> Vec<u8> {
    layout_of(folder, &json!(["/busybox", "cat", "/greeting"]), |files| {
        fs::copy("/bin/busybox", files.join("busybox")).unwrap();
        fs::write(files.join("greeting"), GREETING).unwrap();
    })
}

fn layout_of(folder: &Path, command: &Value, more: impl Fn(&Path)) -> Vec<u8> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(&sha256(bytes)[7..]), bytes).unwrap();
    let files = tempfile::tempdir().unwrap();
    // Large enough that clients send it in pieces.
    let random: Vec<u8> =
        (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(files.path().join("data"), random).unwrap();
    more(files.path());
    let tar = run(Command::new("tar").arg("-C").arg(files.path()).args(["-cf", "-", "."])).stdout;
    fs::write(files.path().join("layer.tar"), &tar).unwrap();
    let layer = run(Command::new("gzip").arg("-nc").arg(files.path().join("layer.tar"))).stdout;
    put(&layer);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": command },
        "rootfs": { "type": "layers", "diff_ids": [sha256(&tar)] },
    });
    let config = config.to_string().into_bytes();
    put(&config);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    put(&manifest);
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    manifest
}

#[test]
fn skopeo_pushes_copies_lists_pulls_and_deletes() {
    if !is_installed("skopeo") {
        return;
    }
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let manifest = layout(folder.path());
    let at = |name: &str| format!("docker://{}/{name}", registry.client.address);
    let skopeo = |words: &[&str]| run(Command::new("skopeo").arg("--insecure-policy").args(words));
    let source = format!("oci:{}:v1", folder.path().display());
    skopeo(&["copy", "--dest-tls-verify=false", &source, &at("shop/web:v1")]);
    assert_eq!(registry.get("/v2/shop/web/manifests/v1").body, manifest);
    let (from, to) = (at("shop/web:v1"), at("other/web:v1"));
    skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]);
    let docker = at("shop/web:docker");
    let both = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format=v2s2"];
    skopeo(&[&both[..], &[&from, &docker]].concat());
    let tags = skopeo(&["list-tags", "--tls-verify=false", &at("shop/web")]).stdout;
    let tags: Value = serde_json::from_slice(&tags).unwrap();
    assert_eq!(tags["Tags"], json!(["docker", "v1"]));
    for name in ["shop/web:v1", "other/web:v1", "shop/web:docker"] {
        let pulled = tempfile::tempdir().unwrap();
        let target = format!("oci:{}:pulled", pulled.path().display());
        skopeo(&["copy", "--src-tls-verify=false", &at(name), &target]);
        let value: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = value["layers"][0]["digest"].as_str().unwrap();
        let bytes = fs::read(pulled.path().join("blobs/sha256").join(&layer[7..])).unwrap();
        assert_eq!(sha256(&bytes), layer, "{name}");
    }
    skopeo(&["delete", "--tls-verify=false", &at("other/web:v1")]);
    assert_eq!(registry.get("/v2/other/web/manifests/v1").status, 404);
}

#[test]
fn skopeo_shows_its_password_over_tls() {
    if !is_installed("skopeo") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some((cert, key)) = crate::start::certificate(folder.path()) else { return };
    let users = folder.path().join("users");
    fs::write(&users, "ann:$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe\n").unwrap();
    let users = users.to_str().unwrap().to_owned();
    let registry = Registry::start_with(&["--tls-cert", &cert, "--tls-key", &key, "--htpasswd", &users]);
    let certs = folder.path().join("certs");
    fs::create_dir(&certs).unwrap();
    fs::copy(&cert, certs.join("ca.crt")).unwrap();
    layout(&folder.path().join("layout"));
    let copy = |credentials: &str| {
        Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-cert-dir"])
            .arg(&certs)
            .args(["--dest-creds", credentials])
            .arg(format!("oci:{}:v1", folder.path().join("layout").display()))
            .arg(format!("docker://{}/a:v1", registry.client.address))
            .output()
            .unwrap()
    };
    assert!(!copy("ann:wrong").status.success());
    let right = copy("ann:a");
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
}

/// Pushes the image of [`runnable_layout`] with this test's own client, and returns its manifest.
fn push_runnable(registry: &Registry, repository: &str, tag: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let manifest = runnable_layout(folder.path());
    for blob in fs::read_dir(folder.path().join("blobs/sha256")).unwrap() {
        registry.push(repository, &fs::read(blob.unwrap().path()).unwrap());
    }
    let text = String::from_utf8(manifest.clone()).unwrap();
    assert_eq!(registry.put_manifest(repository, tag, &text).status, 201);
    manifest
}

/// podman with a storage and control groups of its own; gone with the value.
struct Podman {
    folder: tempfile::TempDir,
    group: String,
}

impl Podman {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        Self { folder, group: format!("kiln-podman-{}", std::process::id()) }
    }

    fn run(&self, words: &[&str]) -> Output {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("podman");
        command.args(["--storage-driver=vfs", "--root"]).arg(path("storage"));
        command.arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
        // The runtime that works with every version of control groups, by its files: there may be no systemd to ask.
        command.args(["--runtime=runc", "--cgroup-manager=cgroupfs"]);
        run(command.args(words))
    }

    /// What there is of its control groups, in one hierarchy or in many.
    fn groups(&self) -> impl Iterator<Item = std::path::PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        let groups = hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(&self.group));
        groups.filter(|group| group.exists())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // podman leaves the parent that it was given, once in each hierarchy, and its monitor ends a moment after it.
        for _ in 0..100 {
            for group in self.groups() {
                let _ = fs::remove_dir(group.join("conmon"));
                let _ = fs::remove_dir(group);
            }
            if self.groups().next().is_none() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[test]
fn podman_pulls_runs_and_pushes() {
    if !is_installed("podman") {
        return;
    }
    let registry = Registry::start();
    push_runnable(&registry, "shop/web", "v1");
    let podman = Podman::new();
    let at = |name: &str| format!("{}/{name}", registry.client.address);
    let says = |image: &str| {
        let parent = format!("--cgroup-parent=/{}", podman.group);
        // Its own limits need more rights than a container as CI may have.
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        let words = ["run", "--rm", "--pull=never", "--network=none", "--log-driver=none", &parent];
        let said = podman.run(&[&words[..], &limits, &[image]].concat()).stdout;
        assert_eq!(String::from_utf8_lossy(&said), GREETING);
    };
    podman.run(&["pull", "-q", "--tls-verify=false", &at("shop/web:v1")]);
    says(&at("shop/web:v1"));
    podman.run(&["tag", &at("shop/web:v1"), &at("other/web:v2")]);
    podman.run(&["push", "-q", "--tls-verify=false", &at("other/web:v2")]);
    podman.run(&["rmi", "-af"]);
    podman.run(&["pull", "-q", "--tls-verify=false", &at("other/web:v2")]);
    says(&at("other/web:v2"));
    assert_eq!(registry.get("/v2/other/web/tags/list").json()["tags"], json!(["v2"]));
}

/// A containerd of its own; ended when dropped.
struct Containerd {
    child: std::process::Child,
    folder: tempfile::TempDir,
}

impl Containerd {
    fn start() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("config.toml"), "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
            .unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(path("config.toml")).arg("--root").arg(path("root"));
        command.arg("--state").arg(path("state")).arg("--address").arg(path("sock"));
        let quiet = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let daemon = Self { child: quiet.spawn().unwrap(), folder };
        for _ in 0..300 {
            if daemon.ctr(&["version"]).output().unwrap().status.success() {
                return daemon;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("containerd does not start");
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.folder.path().join("sock")).args(words);
        command
    }

    /// Pulls an image and runs it.
    fn pull_and_run(&self, image: &str) {
        // Not by overlay, which may not be laid over what CI itself runs on.
        let snapshotter = "--snapshotter=native";
        run(&mut self.ctr(&["images", "pull", "--plain-http", snapshotter, image]));
        let name = format!("kiln-{}", std::process::id());
        let said = run(&mut self.ctr(&["run", "--rm", snapshotter, image, &name])).stdout;
        assert_eq!(String::from_utf8_lossy(&said), GREETING);
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn containerd_pulls_runs_and_pushes() {
    if !is_installed("containerd") || !is_installed("ctr") {
        return;
    }
    let registry = Registry::start();
    let manifest = push_runnable(&registry, "shop/web", "v1");
    let containerd = Containerd::start();
    let at = |name: &str| format!("{}/{name}", registry.client.address);
    containerd.pull_and_run(&at("shop/web:v1"));
    run(&mut containerd.ctr(&["images", "tag", &at("shop/web:v1"), &at("other/web:v2")]));
    run(&mut containerd.ctr(&["images", "push", "--plain-http", &at("other/web:v2")]));
    assert_eq!(registry.get("/v2/other/web/manifests/v2").body, manifest);
    // Not what it kept: another one starts with nothing.
    drop(containerd);
    Containerd::start().pull_and_run(&at("other/web:v2"));
}
