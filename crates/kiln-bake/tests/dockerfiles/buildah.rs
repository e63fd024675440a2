//! The same Dockerfiles baked by buildah: trees and configs agree. Skipped where buildah is not installed (Debian's `buildah`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kiln_model::recipe::DockerfileSource;
use kiln_store::canonical::digest_of;
use kiln_store::{Entry, Kind};
use serde_json::Value;

use crate::kitchen::{Dish, Kitchen};
use crate::projects::{bake, prepare, projects, with_toolchain, with_tools};

/// Projects of which the two make different things, and why Kiln's is right.
const DIFFERENT: [(&str, &str); 2] = [
    ("comments_between", "BuildKit takes a JSON array with words behind it as a command for the shell"),
    ("onbuild_base", "buildah's OCI images have no ONBUILD"),
];

/// Files that buildah leaves of its mounts.
const OF_MOUNTS: [&str; 7] = ["dev", "proc", "sys", "run", "etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// What Kiln normalises: see `docs/bake.md`.
const NORMALISED: [&str; 2] = ["var/lib/apt/lists/", "var/cache/apt/"];

/// Fields that OCI's config has no place for, where buildah leaves them out.
const NOT_OF_OCI: [&str; 3] = ["Healthcheck", "OnBuild", "Shell"];

#[test]
fn buildah_makes_the_same_of_the_projects_that_it_can_bake() {
    let Some(buildah) = Buildah::find() else {
        let required = std::env::var("KILN_PEERS").is_ok_and(|peers| peers == "required");
        assert!(!required, "buildah is not installed");
        eprintln!("skipped: buildah is not installed");
        return;
    };
    let kitchen = with_toolchain();
    let base = buildah.pull(&kitchen);
    let (mut same, mut wrong) = (0, String::new());
    for path in projects() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let (head, _) = text.split_once("#: expect\n").unwrap();
        let source = prepare(&kitchen, head);
        let Ok(dish) = bake(&kitchen, source.clone()) else { continue };
        let Some((root, config)) = buildah.build(&kitchen, &base, &source) else { continue };
        let mut found = config_differences(&dish.config, &config);
        found.extend(tree_differences(&dish, &root));
        let is_known = DIFFERENT.iter().any(|(known, _)| *known == name);
        assert!(!is_known || !found.is_empty(), "{name} does not differ any more");
        if !found.is_empty() && !is_known {
            wrong += &format!("{name}\n  {}\n", found.join("\n  "));
        }
        same += usize::from(found.is_empty());
    }
    assert!(wrong.is_empty(), "ours | buildah's\n{wrong}");
    assert!(same >= 40, "only {same} could be compared");
}

/// buildah with a storage of its own.
struct Buildah {
    storage: tempfile::TempDir,
}

impl Buildah {
    fn find() -> Option<Self> {
        Command::new("buildah").arg("--version").output().ok()?;
        // It makes a reference of a folder's path, which must be in lower case.
        let prefix = format!("kiln-buildah-{}", std::process::id());
        Some(Self {
            storage: tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir_in("/var/tmp").unwrap(),
        })
    }

    fn run(&self, words: &[&str]) -> Output {
        let at = |name: &str| self.storage.path().join(name);
        let mut command = Command::new("buildah");
        // What its cache mounts hold lies there.
        command.env("TMPDIR", self.storage.path());
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run"));
        command.args(["--storage-driver", "vfs"]).args(words).output().unwrap()
    }

    fn must(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Takes over the base with the toolchains, and returns its id.
    fn pull(&self, kitchen: &Kitchen) -> String {
        let folder = self.storage.path().join("tools");
        kitchen.write("web/Dockerfile", "FROM scratch\n");
        kitchen.export(&with_tools(crate::kitchen::dockerfile("web")), "tools", &folder);
        self.must(&["pull", "--quiet", &format!("oci:{}", folder.display())])
    }

    /// Returns the root and the config of what it makes; nothing where its language is an older one.
    fn build(&self, kitchen: &Kitchen, base: &str, source: &DockerfileSource) -> Option<(PathBuf, Value)> {
        for name in source.contexts.keys() {
            self.must(&["tag", base, name]);
        }
        let web = kitchen.path("web");
        let mut words: Vec<String> =
            ["build", "--isolation", "chroot", "--pull-never", "--layers=false", "--tag", "out"]
                .map(str::to_owned)
                .into();
        words.extend(source.target.iter().map(|target| format!("--target={target}")));
        words.extend(source.args.iter().map(|(key, value)| format!("--build-arg={key}={value}")));
        words.push(web.to_string_lossy().into_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if !self.run(&words).status.success() {
            return None;
        }
        let image: Value = serde_json::from_str(&self.must(&["inspect", "--type", "image", "out"])).unwrap();
        let container = self.must(&["from", "--pull-never", "out"]);
        let root = self.must(&["mount", &container]);
        Some((root.into(), image["OCIv1"]["config"].clone()))
    }
}

fn config_differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let keys: BTreeSet<&String> =
        [ours, theirs].into_iter().flat_map(|config| config.as_object().unwrap().keys()).collect();
    let compared = keys.into_iter().filter(|key| !NOT_OF_OCI.contains(&key.as_str()));
    let differs = compared.filter_map(|key| {
        let (ours, theirs) = (settled(key, &ours[key]), settled(key, &theirs[key]));
        (ours != theirs).then(|| format!("{key}: {ours} | {theirs}"))
    });
    differs.collect()
}

/// A field without what means the same: the order of variables, defaults that are written out, buildah's own label.
fn settled(key: &str, value: &Value) -> Value {
    let mut value = value.clone();
    match (key, &mut value) {
        ("Env", Value::Array(lines)) => lines.sort_by_key(ToString::to_string),
        ("WorkingDir", Value::String(path)) if path == "/" => return Value::Null,
        ("Labels", Value::Object(labels)) => labels.retain(|key, _| !key.starts_with("io.buildah")),
        _ => {}
    }
    match &value {
        Value::Object(map) if map.is_empty() => Value::Null,
        Value::Array(list) if list.is_empty() => Value::Null,
        _ => value,
    }
}

fn tree_differences(dish: &Dish, root: &Path) -> Vec<String> {
    let mut theirs = BTreeMap::new();
    list(root, root, &mut theirs);
    let ours: BTreeMap<Vec<u8>, String> = dish
        .tree
        .iter()
        .filter(|(path, _)| !path.is_root())
        .map(|(path, entry)| (path.as_bytes().to_vec(), line(entry)))
        .collect();
    // buildah makes the folders of volumes, BuildKit does not.
    let volumes: Vec<String> = dish.config["Volumes"]
        .as_object()
        .map(|volumes| volumes.keys().map(|path| path.trim_matches('/').to_owned()).collect())
        .unwrap_or_default();
    let is_theirs_alone = |path: &str| {
        OF_MOUNTS.contains(&path)
            || NORMALISED.iter().any(|folder| path.starts_with(folder))
            || volumes.iter().any(|volume| volume == path || volume.starts_with(&format!("{path}/")))
    };
    let paths: BTreeSet<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
    let differs = paths.into_iter().filter_map(|path| {
        let (mine, other) = (ours.get(path), theirs.get(path));
        let shown = String::from_utf8_lossy(path);
        let is_known = mine.is_none() && is_theirs_alone(&shown);
        (mine != other && !is_known).then(|| format!("/{shown}: {mine:?} | {other:?}"))
    });
    differs.collect()
}

fn list(root: &Path, folder: &Path, found: &mut BTreeMap<Vec<u8>, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let owner = format!("{}:{}", meta.uid(), meta.gid());
        let mode = meta.mode() & 0o7777;
        let kind = if meta.is_symlink() {
            format!("{owner} -> {}", fs::read_link(&path).unwrap().display())
        } else if meta.is_dir() {
            list(root, &path, found);
            format!("{owner} {mode:04o} folder")
        } else {
            format!("{owner} {mode:04o} {}", digest_of(&fs::read(&path).unwrap()).short())
        };
        let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        found.insert(below, kind);
    }
}

/// An entry as [`list`] tells it.
fn line(entry: &Entry) -> String {
    let Entry { meta, kind } = entry;
    let owner = format!("{}:{}", meta.uid, meta.gid);
    match kind {
        Kind::Symlink { target } => format!("{owner} -> {}", String::from_utf8_lossy(target)),
        Kind::Dir => format!("{owner} {:04o} folder", meta.mode),
        Kind::File { digest, .. } => format!("{owner} {:04o} {}", meta.mode, digest.short()),
        other => format!("{owner} {other:?}"),
    }
}
