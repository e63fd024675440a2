//! `kiln image push` and `kiln image pull`, between real processes. They need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clients::{is_installed, layout, run};
use crate::server::{INDEX, MANIFEST, Registry, descriptor, sha256};

/// A state folder, and what else a command finds around it; gone with the value.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    has_disk: bool,
}

pub(crate) struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Asserts a failure by its exit code and by what it says.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for text in texts {
            assert!(self.err.contains(text), "`{text}` is not in {}", self.err);
        }
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("kiln-transfer-").tempdir_in("/var/tmp").unwrap();
        Self { folder, has_disk: false }
    }

    /// One whose state is on a disk of its own, which is soon full.
    fn with_disk(size: &str) -> Self {
        let mut place = Self::new();
        place.has_disk = true;
        fs::create_dir(place.state()).unwrap();
        let options = format!("size={size},mode=0755");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(place.state()));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.arg("--state").arg(self.state()).arg("--json").args(words).current_dir(self.folder.path());
        command.env("DOCKER_CONFIG", self.path("docker")).env("XDG_CONFIG_HOME", self.path("config"));
        command
    }

    pub(crate) fn kiln(&self, words: &[&str]) -> Said {
        let output = self.command(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Images that the store lists.
    pub(crate) fn images(&self) -> Vec<Value> {
        self.kiln(&["image", "list"]).ok()["images"].as_array().unwrap().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.has_disk {
            let _ = Command::new("umount").arg(self.state()).status();
        }
    }
}

pub(crate) fn at(registry: &Registry, name: &str) -> String {
    format!("{}/{name}", registry.client.address)
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back_as_it_was() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    let manifest = layout(&one.path("layout"));
    let pulled = one.kiln(&["image", "pull", "oci:layout:v1"]).ok();
    assert_eq!(pulled["digest"], sha256(&manifest));
    assert_eq!(pulled["size_bytes"], 3_000_000);
    let name = at(&registry, "shop/web:v1");
    let pushed = one.kiln(&["image", "push", "oci:layout:v1", &name]).ok();
    assert_eq!(pushed["sent_blobs"], 2);
    assert_eq!(registry.get("/v2/shop/web/manifests/v1").body, manifest);
    // What is there is not sent again, under another tag or in another repository.
    for name in ["shop/web:v2", "other/web:v1"] {
        let again = one.kiln(&["image", "push", "oci:layout:v1", &at(&registry, name)]).ok();
        assert_eq!(again["sent_blobs"], 0);
    }
    let back = two.kiln(&["image", "pull", &name]).ok();
    let told = json!({
        "digest": sha256(&manifest), "name": name, "size_bytes": 3_000_000, "referrers": 0, "left_out": [],
    });
    assert_eq!(back, told);
    let shown = two.kiln(&["image", "show", &name]).ok();
    assert_eq!(shown["command"], json!(["/data"]));
    assert_eq!(shown["unproven"], json!([format!("it was brought in from {name}")]));
    let by_digest = format!("{}@{}", at(&registry, "shop/web"), sha256(&manifest));
    assert_eq!(two.kiln(&["image", "pull", &by_digest]).ok()["digest"], sha256(&manifest));
    two.kiln(&["image", "push", &name, "oci:out:again"]).ok();
    let blob = &sha256(&manifest)[7..];
    assert_eq!(fs::read(two.path("out/blobs/sha256").join(blob)).unwrap(), manifest);
    if is_installed("skopeo") {
        let inspected = run(Command::new("skopeo")
            .args(["inspect", "--raw", "oci:out:again"])
            .current_dir(two.folder.path()));
        assert_eq!(inspected.stdout, manifest);
    }
}

#[test]
fn what_is_baked_here_is_the_same_there_and_what_is_said_about_it_goes_along() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    fs::create_dir_all(one.path("files")).unwrap();
    fs::write(one.path("files/hello"), "hello").unwrap();
    let stack = "stack \"demo\" {}\n\nimage \"web\" {\n  from    = \"scratch\"\n  command = [\"/hello\"]\n\n  copy {\n    from = \"./files\"\n    to   = \"/\"\n  }\n}\n";
    fs::write(one.path("stack.hcl"), stack).unwrap();
    one.kiln(&["bake"]);
    let name = at(&registry, "demo/web:v1");
    let pushed = one.kiln(&["image", "push", "demo/web", &name]).ok();
    let pulled = two.kiln(&["image", "pull", &name]).ok();
    assert_eq!(pushed["digest"], pulled["digest"]);
    let tree = |place: &Place, name: &str| place.kiln(&["image", "show", name]).ok()["tree"].clone();
    assert_eq!(tree(&one, "demo/web"), tree(&two, &name), "the same tree, from its layers");
    // What the bake says about it goes along.
    let digest = pushed["digest"].as_str().unwrap();
    let listed = registry.get(&format!("/v2/demo/web/referrers/{digest}")).json();
    let kinds: Vec<_> =
        listed["manifests"].as_array().unwrap().iter().map(|it| it["artifactType"].clone()).collect();
    assert!(kinds.contains(&json!("application/spdx+json")), "{kinds:?}");
    assert_eq!(pushed["referrers"], kinds.len());
}

#[test]
fn docker_lists_and_plain_layers_come_in() {
    let (registry, place) = (Registry::start(), Place::new());
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("f"), "1").unwrap();
    let tar = run(Command::new("tar").arg("-C").arg(files.path()).args(["-cf", "-", "f"])).stdout;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Env": ["A=b"], "Labels": null, "Entrypoint": null, "Volumes": { "/data": {} } },
        "rootfs": { "type": "layers", "diff_ids": [sha256(&tar)] },
    });
    let config = config.to_string();
    registry.push("a", config.as_bytes());
    registry.push("a", &tar);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": docker,
        "config": descriptor("application/vnd.docker.container.image.v1+json", config.as_bytes()),
        // The type lies: it is not compressed.
        "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &tar)],
    });
    let manifest = manifest.to_string();
    assert_eq!(registry.put_manifest("a", &sha256(manifest.as_bytes()), &manifest).status, 201);
    let mut entry = descriptor(docker, manifest.as_bytes());
    entry["platform"] = json!({ "os": "linux", "architecture": architecture });
    let list = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [entry],
    });
    assert_eq!(registry.put_manifest("a", "list", &list.to_string()).status, 201);
    let name = at(&registry, "a:list");
    assert_eq!(place.kiln(&["image", "pull", &name]).ok()["digest"], sha256(manifest.as_bytes()));
    let shown = place.kiln(&["image", "show", &name]).ok();
    assert_eq!((&shown["env"], &shown["volumes"]), (&json!({ "A": "b" }), &json!(["/data"])));
    let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    assert_eq!(registry.put_manifest("a", "empty", &empty.to_string()).status, 201);
    place.kiln(&["image", "pull", &at(&registry, "a:empty")]).failed(3, &["is not for linux/"]);
}

#[test]
fn a_file_of_docker_save_comes_in_and_goes_out() {
    let (place, other) = (Place::new(), Place::new());
    layout(&place.path("layout"));
    let whole = place.kiln(&["image", "pull", "oci:layout"]).ok();
    place.kiln(&["image", "push", "oci:layout", "docker-archive:out.tar:shop/web:v1"]).ok();
    let file = place.path("out.tar");
    let name = format!("docker-archive:{}", file.display());
    let pulled = other.kiln(&["image", "pull", &name]).ok();
    assert_eq!(pulled["size_bytes"], whole["size_bytes"]);
    let tree = |place: &Place, name: &str| place.kiln(&["image", "show", name]).ok()["tree"].clone();
    assert_eq!(tree(&other, &name), tree(&place, "oci:layout"));
    let named = format!("{name}:shop/web:v1");
    assert_eq!(other.kiln(&["image", "pull", &named]).ok()["digest"], pulled["digest"], "the same again");
    other.kiln(&["image", "pull", &format!("{name}:shop/web:v2")]).failed(3, &["it has shop/web:v1"]);
    run(Command::new("gzip").arg("-k").arg(&file));
    other.kiln(&["image", "pull", &format!("{name}.gz")]).failed(5, &["it is compressed"]);
    let bytes = fs::read(&file).unwrap();
    fs::write(place.path("cut.tar"), &bytes[..bytes.len() / 2]).unwrap();
    place.kiln(&["image", "pull", "docker-archive:cut.tar"]).failed(5, &["not a whole tar"]);
    place
        .kiln(&["image", "push", "oci:layout", "docker-archive:no/such/folder/x.tar"])
        .failed(5, &["No such file"]);
    if !is_installed("skopeo") {
        return;
    }
    // Another tool reads it, and writes one that is read here.
    let skopeo = |words: &[&str]| {
        run(Command::new("skopeo").arg("--insecure-policy").args(words).current_dir(place.folder.path()))
    };
    skopeo(&["copy", "docker-archive:out.tar:shop/web:v1", "oci:from-docker:v1"]);
    skopeo(&["copy", "oci:layout:v1", "docker-archive:theirs.tar:shop/web:theirs"]);
    for name in ["oci:from-docker:v1", "docker-archive:theirs.tar:shop/web:theirs"] {
        place.kiln(&["image", "pull", name]).ok();
        assert_eq!(tree(&place, name), tree(&place, "oci:layout"), "{name}");
    }
}

#[test]
fn dockers_credentials_open_a_registry_over_tls() {
    let place = Place::new();
    let Some((cert, key)) = crate::start::certificate(place.folder.path()) else { return };
    fs::write(place.path("users"), crate::start::USERS).unwrap();
    let users = place.path("users").to_str().unwrap().to_owned();
    let registry = Registry::start_with(&["--tls-cert", &cert, "--tls-key", &key, "--htpasswd", &users]);
    layout(&place.path("layout"));
    place.kiln(&["image", "pull", "oci:layout"]).ok();
    let name = at(&registry, "shop/web:v1");
    let push = |words: &[&str]| place.kiln(&[&["image", "push", "oci:layout", &name], words].concat());
    let host = registry.client.address.to_string();
    push(&["--ca", &cert]).failed(3, &["401", "have no user for it", &format!("docker login {host}")]);
    fs::create_dir(place.path("docker")).unwrap();
    let config = |auth: Value| fs::write(place.path("docker/config.json"), auth.to_string()).unwrap();
    config(json!({ "auths": { &host: { "auth": "YW5uOmI=" } } }));
    push(&["--ca", &cert]).failed(3, &["401"]);
    config(json!({ "auths": { &host: { "auth": "YW5uOmE=" } } }));
    push(&["--ca", &cert]).ok();
    // From a helper.
    fs::create_dir(place.path("bin")).unwrap();
    let helper = place.path("bin/docker-credential-kilntest");
    fs::write(&helper, "#!/bin/sh\nread host\necho '{\"Username\":\"ann\",\"Secret\":\"a\"}'\n").unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    config(json!({ "credHelpers": { &host: "kilntest" } }));
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    let pull = place.command(&["image", "pull", &name, "--ca", &cert]).env("PATH", path).output().unwrap();
    assert!(pull.status.success(), "{}", String::from_utf8_lossy(&pull.stderr));
    config(json!({ "auths": 5 }));
    push(&["--ca", &cert]).failed(5, &["config.json is not a file of Docker's credentials"]);
}

#[test]
fn a_name_that_is_forgotten_keeps_no_image_any_more() {
    let place = Place::new();
    layout(&place.path("layout"));
    let digest = place.kiln(&["image", "pull", "oci:layout"]).ok()["digest"].clone();
    place.kiln(&["image", "pull", "oci:layout:v1"]).ok();
    place.kiln(&["image", "forget", "oci:layout"]).ok();
    let images = place.images();
    assert_eq!(
        (images.len(), &images[0]["digest"], &images[0]["names"]),
        (1, &digest, &json!(["oci:layout:v1"]))
    );
    place.kiln(&["image", "forget", "oci:layout"]).failed(3, &["no image is called `oci:layout`"]);
    place.kiln(&["image", "forget", "oci:layout:v1"]).ok();
    // A collection, as the controller runs it, asks for what the names point at.
    let store = kiln_store::Store::open(place.state()).unwrap();
    let collection = store.leases.begin_collection().unwrap();
    let mut needed = kiln_store::Needed::default();
    let named = store.images.names().unwrap().into_iter().map(|(_, manifest)| manifest);
    store.need(&collection, &mut needed, named).unwrap();
    assert_eq!(store.collect(&collection, &needed).unwrap().images, 1);
    drop(collection);
    assert!(place.images().is_empty());
    assert_eq!(store.objects.list().unwrap().len() + store.blobs.list().unwrap().len(), 0);
}

#[test]
fn what_fails_says_what_and_why() {
    let (registry, place) = (Registry::start(), Place::new());
    layout(&place.path("layout"));
    place.kiln(&["image", "pull", "oci:layout:v2"]).failed(3, &["has no image `v2`; it has v1"]);
    place.kiln(&["image", "pull", "oci:nowhere"]).failed(5, &["nowhere is not an OCI image layout"]);
    place.kiln(&["image", "pull", &at(&registry, "a:v1")]).failed(3, &["has no manifest v1 of a"]);
    place
        .kiln(&["image", "push", "nothing", &at(&registry, "a:v1")])
        .failed(3, &["no image is called `nothing`"]);
    place
        .kiln(&["image", "pull", "127.0.0.1:1/a:v1"])
        .failed(5, &["127.0.0.1:1 can't be reached", "refused"]);
    place.kiln(&["image", "pull", "A/b"]).failed(2, &["names no image in a registry"]);
    let blob = |name: &str| place.path("layout/blobs/sha256").join(&name[7..]);
    let index: Value = serde_json::from_slice(&fs::read(place.path("layout/index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap();
    let value: Value = serde_json::from_slice(&fs::read(blob(manifest)).unwrap()).unwrap();
    let layer = blob(value["layers"][0]["digest"].as_str().unwrap());
    let mut bytes = fs::read(&layer).unwrap();
    bytes[1000] ^= 1;
    fs::write(&layer, &bytes).unwrap();
    place.kiln(&["image", "pull", "oci:layout"]).failed(5, &["has the digest sha256:"]);
    assert!(place.images().is_empty());
}

/// Runs a command to its end, and returns the most memory that it had, in kB.
fn memory_of(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.map_or(peak, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success(), "{command:?}");
    peak
}

#[test]
fn memory_does_not_grow_with_a_layer() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    let files = tempfile::tempdir_in("/var/tmp").unwrap();
    let piece: Vec<u8> = (0..4 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(files.path().join("large"), piece.repeat(50)).unwrap();
    image_of(&one.path("layout"), &[files.path()]);
    let name = at(&registry, "a:v1");
    for (place, words) in [
        (&one, &["image", "pull", "oci:layout"][..]),
        (&one, &["image", "push", "oci:layout", &name]),
        (&two, &["image", "pull", &name]),
        (&two, &["image", "push", &name, "docker-archive:out.tar"]),
    ] {
        let peak = memory_of(&mut place.command(words));
        assert!(peak > 0 && peak < 64 << 10, "{words:?} needed {peak} kB");
    }
}

#[test]
fn a_full_disk_ends_a_pull_and_leaves_no_image() {
    let (registry, place, other) = (Registry::start(), Place::with_disk("2m"), Place::new());
    layout(&other.path("layout"));
    other.kiln(&["image", "pull", "oci:layout"]).ok();
    let name = at(&registry, "a:v1");
    other.kiln(&["image", "push", "oci:layout", &name]).ok();
    place.kiln(&["image", "pull", &name]).failed(5, &["no space left", "free some space"]);
    assert!(place.images().is_empty());
}

#[test]
fn a_push_that_fills_the_registrys_disk_is_refused_and_succeeds_once_there_is_room() {
    let ((registry, disk), place) = (Registry::with_disk("8m"), Place::new());
    // It takes 3 MB, and one of its layers fits.
    let manifest = layout_of_layers(&place.path("layout"), 50);
    let kept = registry.push_image("a", "kept", b"layer");
    let (ballast, name) = (disk.fill_but(3 << 19), at(&registry, "a:v1"));
    place.kiln(&["image", "pull", "oci:layout"]).ok();
    let why = ["refuses", "the registry's disk is full (507)"];
    place.kiln(&["image", "push", "oci:layout", &name]).failed(5, &why);

    registry.get("/v2/a/manifests/v1").refused(404, "MANIFEST_UNKNOWN");
    registry.get(&format!("/v2/a/manifests/{}", sha256(&manifest))).refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.get("/v2/a/tags/list").json()["tags"], json!(["kept"]));
    assert_eq!(registry.get("/v2/a/manifests/kept").body, kept.as_bytes());
    for layer in serde_json::from_slice::<Value>(&manifest).unwrap()["layers"].as_array().unwrap() {
        let blob = registry.get(&format!("/v2/a/blobs/{}", layer["digest"].as_str().unwrap()));
        assert!(blob.status == 404 || sha256(&blob.body) == layer["digest"], "{}", blob.status);
    }

    fs::remove_file(ballast).unwrap();
    place.kiln(&["image", "push", "oci:layout", &name]).ok();
    assert_eq!(registry.get("/v2/a/manifests/v1").body, manifest);
}

#[test]
fn a_kill_in_the_middle_of_a_pull_or_a_push_leaves_nothing_half_done() {
    let (registry, place, other) = (Registry::start(), Place::new(), Place::new());
    let manifest = large_layout(&other.path("layout"));
    let name = at(&registry, "a:v1");
    other.kiln(&["image", "pull", "oci:layout"]).ok();
    for delay in [5, 30, 80] {
        let mut push =
            other.command(&["image", "push", "oci:layout", &name]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        push.kill().unwrap();
        push.wait().unwrap();
        let tagged = registry.get("/v2/a/manifests/v1");
        assert!(tagged.status == 404 || tagged.body == manifest, "{}", tagged.status);
    }
    other.kiln(&["image", "push", "oci:layout", &name]).ok();
    for delay in [5, 60, 150, 300] {
        let mut pull = place.command(&["image", "pull", &name]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        pull.kill().unwrap();
        pull.wait().unwrap();
        for image in place.images() {
            assert_eq!(image["digest"], sha256(&manifest));
        }
    }
    assert_eq!(place.kiln(&["image", "pull", &name]).ok()["digest"], sha256(&manifest));
    let leftovers = fs::read_dir(place.state().join("store/tmp")).unwrap().count();
    assert_eq!(leftovers, 0, "what a killed one left is swept by the next");
}

/// As [`layout`], with three layers that take a while.
fn large_layout(folder: &Path) -> Vec<u8> {
    layout_of_layers(folder, 300)
}

/// As [`layout`], with three layers of so many files of 20 kB each.
fn layout_of_layers(folder: &Path, count: u32) -> Vec<u8> {
    let files = tempfile::tempdir().unwrap();
    let folders = [0, 1, 2_u32].map(|number| {
        let layer = files.path().join(number.to_string());
        fs::create_dir(&layer).unwrap();
        for file in 0..count {
            let seed = number * 1000 + file + 1;
            let bytes: Vec<u8> = (0..20_000_u32).map(|at| (at.wrapping_mul(seed) >> 3) as u8).collect();
            fs::write(layer.join(format!("{number}.{file}")), bytes).unwrap();
        }
        layer
    });
    image_of(folder, &folders.each_ref().map(PathBuf::as_path))
}

/// Writes an `oci-layout` folder with an image of one plain layer for each folder, and returns its manifest.
fn image_of(folder: &Path, layers: &[&Path]) -> Vec<u8> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(&sha256(bytes)[7..]), bytes).unwrap();
    let tars = layers
        .iter()
        .map(|layer| run(Command::new("tar").arg("-C").arg(layer).args(["-cf", "-", "."])).stdout);
    let tars: Vec<_> = tars.collect();
    tars.iter().for_each(|tar| put(tar));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diff_ids: Vec<_> = tars.iter().map(|tar| sha256(tar)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string().into_bytes();
    let tars: Vec<_> =
        tars.iter().map(|tar| descriptor("application/vnd.oci.image.layer.v1.tar", tar)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": tars,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
    });
    let manifest = manifest.to_string().into_bytes();
    put(&config);
    put(&manifest);
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(MANIFEST, &manifest)] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    manifest
}

#[test]
fn signatures_are_pushed_to_where_cosign_looks_for_them_beside_those_of_others() {
    let (registry, place) = (Registry::start(), Place::new());
    let manifest = layout(&place.path("layout"));
    place.kiln(&["image", "pull", "oci:layout:v1"]).ok();
    let digest = sha256(&manifest);
    let tag = format!("/v2/shop/web/manifests/{}.sig", digest.replace(':', "-"));
    let name = at(&registry, "shop/web:v1");
    let signatures = || -> Vec<Value> {
        let manifest: Value = serde_json::from_slice(&registry.get(&tag).body).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["annotations"]["dev.cosignproject.cosign/signature"].clone()).collect()
    };
    place.kiln(&["image", "push", "oci:layout:v1", &name]).ok();
    assert_eq!(registry.get(&tag).status, 404, "nobody signed it yet");
    place.kiln(&["image", "keygen", "own"]).ok();
    place.kiln(&["image", "sign", "oci:layout:v1", "--key", "own.key"]).ok();
    place.kiln(&["image", "push", "oci:layout:v1", &name]).ok();
    let own = signatures();
    assert_eq!(own.len(), 1);

    // Somebody else, on another machine, who has not seen that signature.
    let other = Place::new();
    other.kiln(&["image", "pull", &name]).ok();
    other.kiln(&["image", "keygen", "other"]).ok();
    other.kiln(&["image", "sign", &name, "--key", "other.key"]).ok();
    for _ in 0..2 {
        other.kiln(&["image", "push", &name, &name]).ok();
        let both = signatures();
        assert!(both.len() == 2 && both[0] == own[0] && both[1] != own[0], "{both:?}");
    }
}

#[test]
fn what_is_said_about_an_image_is_pulled_with_it_and_so_is_what_cosign_left_under_a_tag() {
    let (registry, one, two, three) = (Registry::start(), Place::new(), Place::new(), Place::new());
    crate::bases::bake_os(&one, "text");
    one.kiln(&["image", "keygen", "own"]).ok();
    one.kiln(&["image", "sign", "os/os", "--key", "own.key"]).ok();
    let name = at(&registry, "os/os:v1");
    let pushed = one.kiln(&["image", "push", "os/os", &name]).ok();
    let digest = pushed["digest"].as_str().unwrap().to_owned();

    let pulled = two.kiln(&["image", "pull", &name]).ok();
    assert_eq!(pulled["referrers"], pushed["referrers"], "{pulled}");
    assert_eq!(pulled["left_out"], serde_json::json!([]));
    for what in [&["sbom"][..], &["provenance"]] {
        let of = |place: &Place, name: &str| place.kiln(&[&["image"], what, &[name]].concat()).ok();
        assert_eq!(of(&two, &name), of(&one, "os/os"));
    }
    fs::copy(one.path("own.pub"), two.path("own.pub")).unwrap();
    let verified = two.kiln(&["image", "verify", &name, "--key", "own.pub"]).ok();
    assert_eq!(verified["statements"].as_array().unwrap().len(), 3, "{verified}");

    // As older versions of `cosign` leave it: a tag, and nothing that says what it is about.
    let tag = format!("/v2/os/os/manifests/{}.sig", digest.replace(':', "-"));
    let answer = registry.get(&tag);
    let mut plain: Value = serde_json::from_slice(&answer.body).unwrap();
    let listed = registry.get(&format!("/v2/os/os/referrers/{digest}")).json();
    for entry in listed["manifests"].as_array().unwrap() {
        let path = format!("/v2/os/os/manifests/{}", entry["digest"].as_str().unwrap());
        assert_eq!(registry.send("DELETE", &path, &[], b"").status, 202);
    }
    let fields = plain.as_object_mut().unwrap();
    fields.remove("subject");
    fields.remove("artifactType");
    fields["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let kind = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
    assert_eq!(registry.send("PUT", &tag, &kind, plain.to_string().as_bytes()).status, 201);
    let pulled = three.kiln(&["image", "pull", &name]).ok();
    assert_eq!(pulled["referrers"], 1, "{pulled}");
    fs::copy(one.path("own.pub"), three.path("own.pub")).unwrap();
    three.kiln(&["image", "verify", &name, "--key", "own.pub"]).ok();
}
