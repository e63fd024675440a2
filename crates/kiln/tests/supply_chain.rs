//! What is in an image and where it came from, through the real binary: bills of materials.
//!
//! They need root. The images start from nothing, so no archive is asked for anything.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A stack folder and a state folder, gone with the value.
struct World {
    folder: tempfile::TempDir,
}

/// What a command did.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }
}

impl World {
    /// A stack of one image that holds the folder `files`.
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("kiln-supply-").tempdir_in("/var/tmp").unwrap();
        let world = Self { folder };
        let stack = "stack \"demo\" {}\n\nimage \"web\" {\n  from = \"scratch\"\n\n  copy {\n    from = \"./files\"\n    to   = \"/\"\n  }\n}\n";
        world.write("stack.hcl", stack);
        world.write(
            "files/app/package-lock.json",
            r#"{"packages":{"node_modules/left-pad":{"version":"1.3.0"}}}"#,
        );
        world.write("files/lib/six-1.16.0.dist-info/METADATA", "Name: six\nVersion: 1.16.0\nLicense: MIT\n");
        world
    }

    fn stack(&self) -> PathBuf {
        self.folder.path().join("stack")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.stack().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn kiln(&self, words: &[&str]) -> Ran {
        self.kiln_in(&self.folder.path().join("state"), words)
    }

    fn kiln_in(&self, state: &Path, words: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(words)
            .current_dir(self.stack())
            .env("KILN_STATE", state)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

#[test]
fn a_bill_of_materials_is_the_same_bytes_in_two_stores_and_names_what_it_leaves_out() {
    let world = World::new();
    world.write("files/broken.jar", "no zip");
    let other = world.folder.path().join("other");
    for state in [&world.folder.path().join("state"), &other] {
        world.kiln_in(state, &["bake"]).ok();
    }
    for format in ["spdx", "cyclonedx"] {
        let words = ["image", "sbom", "demo/web", "--format", format];
        let printed = world.kiln(&words).ok();
        assert_eq!(printed.out, world.kiln_in(&other, &words).ok().out);
        assert_eq!(
            printed.err,
            "/broken.jar is left out: broken.jar: it is no zip archive, or a broken one\n"
        );
        let document: Value = serde_json::from_str(&printed.out).unwrap();
        for purl in ["pkg:npm/left-pad@1.3.0", "pkg:pypi/six@1.16.0"] {
            assert!(document.to_string().contains(purl), "{purl} in {document}");
        }
    }
    assert_eq!(world.kiln(&["image", "sbom", "demo/none"]).code, 3);
}

/// What `kiln image show` says of an image: the kinds of what refers to it, with their digests.
fn referrers(world: &World, name: &str) -> Vec<(String, String)> {
    let shown = world.kiln(&["--json", "image", "show", name]).ok();
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let referrers = shown["referrers"].as_array().unwrap();
    referrers.iter().map(|one| (text(&one["kind"]), text(&one["digest"]))).collect()
}

#[test]
fn a_baked_image_carries_its_bills_of_materials_and_its_provenance() {
    let world = World::new();
    world.write("files/run.sh", "exit 0\n");
    std::os::unix::fs::symlink("run.sh", world.stack().join("files/link")).unwrap();
    world.kiln(&["bake"]).ok();
    let said = referrers(&world, "demo/web");
    let kinds: std::collections::BTreeSet<&str> = said.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected =
        ["application/spdx+json", "application/vnd.cyclonedx+json", "https://slsa.dev/provenance/v1"];
    assert_eq!(kinds, expected.into());
    assert_eq!(said.len(), 3);

    let printed = world.kiln(&["image", "provenance", "demo/web"]).ok();
    let statement: Value = serde_json::from_str(&printed.out).unwrap();
    let image = world.kiln(&["--json", "image", "show", "demo/web"]).ok();
    let image: Value = serde_json::from_str(&image.out).unwrap();
    let subject = format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap());
    assert_eq!(image["digest"], subject.as_str());
    let definition = &statement["predicate"]["buildDefinition"];
    let step = &definition["externalParameters"]["recipe"][0]["steps"][0]["copy"];
    assert_eq!((&step["from"], &step["to"]), (&"files".into(), &"/".into()));
    let inputs = definition["resolvedDependencies"].as_array().unwrap();
    let digest_of = |name: &str| {
        let input = inputs.iter().find(|input| input["name"] == name);
        input.unwrap_or_else(|| panic!("{name} is not in {inputs:?}"))["digest"]["sha256"].as_str().unwrap()
    };
    let digest = Command::new("sha256sum").arg(world.stack().join("files/run.sh")).output().unwrap();
    assert!(String::from_utf8(digest.stdout).unwrap().starts_with(digest_of("files/run.sh")));
    digest_of("files/link");

    world.kiln(&["bake"]).ok();
    assert_eq!(referrers(&world, "demo/web"), said, "a bake that finds the image says nothing new");
    let other = world.folder.path().join("other");
    world.kiln_in(&other, &["bake"]).ok();
    assert_eq!(world.kiln_in(&other, &["image", "provenance", "demo/web"]).ok().out, printed.out);
}

#[test]
fn damaged_provenance_is_told_and_made_again() {
    let world = World::new();
    world.kiln(&["bake"]).ok();
    let said = referrers(&world, "demo/web");
    let (_, manifest) = said.iter().find(|(kind, _)| kind.contains("slsa")).unwrap();
    let hex = manifest.strip_prefix("sha256:").unwrap();
    let blob = world.folder.path().join("state/store/blobs/sha256").join(&hex[..2]).join(hex);
    // What is there with the right length is never written a second time, so it must go first.
    let length = fs::metadata(&blob).unwrap().len() as usize;
    fs::write(&blob, " ".repeat(length)).unwrap();
    let refused = world.kiln(&["image", "provenance", "demo/web"]);
    assert_eq!((refused.code, refused.err.contains("hint:  `kiln bake`")), (3, true), "{}", refused.err);
    world.kiln(&["bake"]).ok();
    assert_eq!(referrers(&world, "demo/web"), said);
}
