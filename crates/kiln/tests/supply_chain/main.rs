//! What is in an image, where it came from, and whether it comes out the same twice, through the real binary.
//!
//! They need root. The images start from nothing, so no archive is asked for anything.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod again;
#[path = "../../../kiln-bake/tests/dockerfiles/origin.rs"]
mod origin;
mod projects;

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

#[test]
fn a_scan_finds_what_a_database_knows_and_does_not_make_the_image_anew() {
    let world = World::new();
    let packages = "Package: libssl3\nStatus: install ok installed\nSource: openssl\nArchitecture: amd64\nVersion: 3.0.1-1\n";
    world.write("files/var/lib/dpkg/status", packages);
    world.write("files/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    let entry = |id: &str, ecosystem: &str, name: &str, fixed: &str, score: &str| {
        format!(
            r#"{{"id":"{id}","modified":"2026-05-0{}T00:00:00Z","aliases":["CVE-2026-{id}"],"severity":[{{"type":"CVSS_V3","score":"{score}"}}],
            "affected":[{{"package":{{"ecosystem":"{ecosystem}","name":"{name}"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},{{"fixed":"{fixed}"}}]}}]}}]}}"#,
            id.len()
        )
    };
    let (high, low) =
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", "CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N");
    let database = world.folder.path().join("osv");
    fs::create_dir(&database).unwrap();
    let add = |name: &str, text: String| fs::write(database.join(name), text).unwrap();
    add("a.json", entry("DSA-1", "Debian:12", "openssl", "3.0.2-1", high));
    add("b.json", entry("DSA-2", "Debian:11", "openssl", "3.0.2-1", high));
    add("c.json", entry("GHSA-3", "npm", "left-pad", "1.3.1", low));
    add("d.json", entry("PYSEC-4", "PyPI", "six", "1.16.0", high));
    world.kiln(&["bake"]).ok();
    let path = database.to_str().unwrap();
    let scan =
        |more: &[&str]| world.kiln(&[&["image", "scan", "demo/web", "--database", path][..], more].concat());
    let found = scan(&[]);
    assert_eq!(found.code, 1, "{}{}", found.out, found.err);
    let rows: Vec<Vec<&str>> = found.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["high", "CVE-2026-DSA-1", "libssl3", "3.0.1-1", "3.0.2-1"]);
    assert_eq!(rows[2], ["low", "CVE-2026-GHSA-3", "left-pad", "1.3.0", "1.3.1"]);
    let last = "1 vulnerability of severity high or more, by a database of 4 entries (2026-05-07T00:00:00Z)";
    assert_eq!(found.out.lines().last(), Some(last));
    let critical = scan(&["--severity", "critical", "--json"]).ok();
    let answer: Value = serde_json::from_str(&critical.out).unwrap();
    assert_eq!(answer["findings"].as_array().unwrap().len(), 2);
    assert_eq!(answer["findings"][0]["aliases"][0], "DSA-1");
    assert_eq!(answer["findings"][0]["counts"], false);
    let shown = world.kiln(&["--json", "image", "show", "demo/web"]).ok();
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(answer["image"], shown["digest"]);

    add("e.json", "{".into());
    let broken = scan(&[]);
    assert_eq!(broken.code, 5, "{}", broken.out);
    assert!(broken.err.contains("e.json is no vulnerability entry"), "{}", broken.err);
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
    let expected = [
        "application/spdx+json",
        "application/vnd.cyclonedx+json",
        "application/vnd.dev.cosign.artifact.att.v1+json",
        "https://slsa.dev/provenance/v1",
    ];
    assert_eq!(kinds, expected.into());
    assert_eq!(said.len(), 4);

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

/// Where a blob of a world's store is.
fn blob(world: &World, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    world.folder.path().join("state/store/blobs/sha256").join(&hex[..2]).join(hex)
}

#[test]
fn a_bake_signs_its_provenance_with_its_hosts_key_which_another_host_checks() {
    let world = World::new();
    let other = world.folder.path().join("other");
    let file = |name: &str| world.folder.path().join(name).display().to_string();
    for state in [&world.folder.path().join("state"), &other] {
        world.kiln_in(state, &["bake"]).ok();
    }
    let shown = |state: &Path| world.kiln_in(state, &["--json", "image", "list"]).ok().out;
    assert_eq!(shown(&world.folder.path().join("state")), shown(&other), "the key is no part of the image");
    fs::write(file("own.pub"), world.kiln(&["image", "builder-key"]).ok().out).unwrap();
    fs::write(file("other.pub"), world.kiln_in(&other, &["image", "builder-key"]).ok().out).unwrap();
    assert_ne!(fs::read(file("own.pub")).unwrap(), fs::read(file("other.pub")).unwrap());

    let verify = ["image", "verify", "demo/web", "--provenance"];
    world.kiln(&verify).ok();
    let good = world.kiln(&[&verify[..], &["--key", &file("own.pub")]].concat()).ok();
    assert!(good.out.contains("which signed https://slsa.dev/provenance/v1"), "{}", good.out);
    let bad = world.kiln(&[&verify[..], &["--key", &file("other.pub")]].concat());
    assert_eq!(bad.code, 1, "{}", bad.err);
    assert!(bad.err.contains("is not signed by this key"), "{}", bad.err);
    // Who baked it does not say that it may be released.
    let released = world.kiln(&["image", "verify", "demo/web", "--key", &file("own.pub")]);
    assert_eq!((released.code, released.err.contains("it has no signature")), (1, true), "{}", released.err);

    // What `cosign verify-attestation --key` does: the envelope's signature is one of its type and payload.
    let said = referrers(&world, "demo/web");
    let (_, manifest) = said.iter().find(|(kind, _)| kind.ends_with("att.v1+json")).unwrap();
    let read = |digest: &str| fs::read(blob(&world, digest)).unwrap();
    let manifest: Value = serde_json::from_slice(&read(manifest)).unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["annotations"]["predicateType"], "https://slsa.dev/provenance/v1");
    let envelope: Value = serde_json::from_slice(&read(layer["digest"].as_str().unwrap())).unwrap();
    let decode = |text: &Value| {
        fs::write(file("text"), text.as_str().unwrap()).unwrap();
        let decoded = Command::new("openssl").args(["base64", "-d", "-A", "-in", &file("text")]).output();
        decoded.unwrap().stdout
    };
    let payload = decode(&envelope["payload"]);
    assert_eq!(payload, world.kiln(&["image", "provenance", "demo/web"]).ok().out.as_bytes());
    let head = format!("DSSEv1 28 application/vnd.in-toto+json {} ", payload.len());
    fs::write(file("message"), [head.as_bytes(), &payload].concat()).unwrap();
    fs::write(file("sig"), decode(&envelope["signatures"][0]["sig"])).unwrap();
    let check = ["pkeyutl", "-verify", "-rawin", "-in", &file("message"), "-sigfile", &file("sig"), "-pubin"];
    assert!(succeeds("openssl", &[&check[..], &["-inkey", &file("own.pub")]].concat()));
    assert!(!succeeds("openssl", &[&check[..], &["-inkey", &file("other.pub")]].concat()));

    // A signature that is lost is made again, and is the same.
    let damaged = blob(&world, layer["digest"].as_str().unwrap());
    fs::write(&damaged, " ".repeat(fs::metadata(&damaged).unwrap().len() as usize)).unwrap();
    assert_eq!(world.kiln(&verify).code, 1);
    world.kiln(&["bake"]).ok();
    world.kiln(&verify).ok();
    assert_eq!(referrers(&world, "demo/web"), said);

    // Nor does its damage cost what others signed beside it.
    world.kiln(&["image", "keygen", &file("release")]).ok();
    world.kiln(&["image", "sign", "demo/web", "--key", &file("release.key")]).ok();
    fs::write(&damaged, " ".repeat(fs::metadata(&damaged).unwrap().len() as usize)).unwrap();
    world.kiln(&["bake"]).ok();
    world.kiln(&verify).ok();
    world.kiln(&["image", "verify", "demo/web", "--key", &file("release.pub")]).ok();
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

/// Writes into the file that it is told what must not decide, as no library can see.
const PLANT: &str = r#"
    #define _GNU_SOURCE
    #include <sched.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>

    int main(int count, char **words) {
        FILE *out = fopen(words[2], "w");
        if (!strcmp(words[1], "nothing")) fputs("the same", out);
        if (!strcmp(words[1], "time")) fprintf(out, "made at %ld", (long)time(0));
        if (!strcmp(words[1], "processors")) {
            cpu_set_t set;
            sched_getaffinity(0, sizeof set, &set);
            fprintf(out, "make -j%d", CPU_COUNT(&set));
        }
        if (!strcmp(words[1], "random")) {
            char bytes[16];
            fread(bytes, 16, 1, fopen("/dev/urandom", "r"));
            fputs("key:", out);
            fwrite(bytes, 16, 1, out);
        }
        return fclose(out);
    }
"#;

impl World {
    /// A stack whose image runs these steps over a program without a C library to preload.
    fn planted(steps: &[&str]) -> Self {
        let world = Self::new();
        let source = world.folder.path().join("plant.c");
        fs::write(&source, PLANT).unwrap();
        let compiled = Command::new("cc")
            .args(["-w", "-O1", "-static", "-o"])
            .arg(world.stack().join("files/plant"))
            .arg(&source)
            .status();
        assert!(compiled.unwrap().success(), "the planted program compiles");
        let stack = fs::read_to_string(world.stack().join("stack.hcl")).unwrap();
        let runs: String = steps
            .iter()
            .map(|step| format!("\n  run {{\n    command = [\"/plant\", \"{step}\", \"/{step}\"]\n  }}\n"))
            .collect();
        world.write("stack.hcl", &format!("{}{runs}}}\n", stack.trim_end().strip_suffix('}').unwrap()));
        world
    }
}

#[test]
fn a_reproducible_image_is_proven_with_a_certificate() {
    let world = World::planted(&["nothing"]);
    let proven = world.kiln(&["--json", "bake", "--prove"]).ok();
    let answer: Value = serde_json::from_str(&proven.out).unwrap();
    let proof = &answer["proof"]["web"];
    assert_eq!(proof["verdict"], "proven");
    let said = referrers(&world, "demo/web");
    let kind = "application/vnd.kiln.proof.v1+json".to_owned();
    assert!(said.contains(&(kind, proof["certificate"].as_str().unwrap().to_owned())), "{said:?}");
    let certificate = world.kiln(&["image", "certificate", "demo/web"]).ok();
    let certificate: Value = serde_json::from_str(&certificate.out).unwrap();
    assert_eq!(certificate["image"], answer["images"]["web"]);
    let varied: Vec<&str> =
        certificate["varied"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    for what in ["clock of Kiln", "host name", "umask", "folder"] {
        assert!(varied.contains(&what), "{what} is not in {varied:?}");
    }
    let work = world.folder.path().join("state/store/cache/work");
    assert_eq!(fs::read_dir(work).unwrap().count(), 0, "nothing of the second bake stays");

    world.kiln(&["bake", "--prove"]).ok();
    assert_eq!(referrers(&world, "demo/web"), said, "the same proof is the same certificate");
}

#[test]
fn a_planted_difference_is_named_to_the_file_and_the_step() {
    let mut plants =
        vec![("random", "/random: content from byte 4: "), ("time", "/time: content from byte ")];
    if std::thread::available_parallelism().unwrap().get() > 1 {
        plants.push(("processors", "/processors: content from byte 7: \""));
    }
    let steps: Vec<&str> = plants.iter().map(|(step, _)| *step).chain(["nothing"]).collect();
    let world = World::planted(&steps);
    let differs = world.kiln(&["bake", "--prove"]);
    assert_eq!(differs.code, 1, "{}{}", differs.out, differs.err);
    for (step, says) in plants {
        let blamed = format!("web differs in step `run /plant {step} /{step}`:\n  {says}");
        assert!(differs.out.contains(&blamed), "`{blamed}` is not in\n{}", differs.out);
    }
    assert!(!differs.out.contains("/nothing"), "{}", differs.out);
    assert!(!differs.out.contains("step `copy"), "{}", differs.out);
    let shown = world.kiln(&["image", "show", "demo/web"]).ok();
    assert!(!shown.out.contains("certificate"), "{}", shown.out);
}

#[test]
fn a_step_is_done_again_without_the_cache_and_not_with_it() {
    let world = World::planted(&["random"]);
    let digest = |words: &[&str]| {
        world.kiln(words).ok();
        let shown = world.kiln(&["image", "show", "demo/web", "--json"]).ok();
        serde_json::from_str::<Value>(&shown.out).unwrap()["digest"].as_str().unwrap().to_owned()
    };
    let first = digest(&["bake"]);
    assert_eq!(digest(&["bake"]), first);
    let second = digest(&["bake", "--no-cache"]);
    assert_ne!(second, first);
    assert_eq!(digest(&["bake"]), second, "what was made last is what the cache holds");
}

#[test]
fn two_images_differ_in_what_was_changed_and_in_nothing_else() {
    let world = World::new();
    world.kiln(&["bake"]).ok();
    let shown = world.kiln(&["image", "show", "demo/web", "--json"]).ok();
    let first = serde_json::from_str::<Value>(&shown.out).unwrap()["digest"].as_str().unwrap().to_owned();
    let same = world.kiln(&["image", "diff", &first, "demo/web"]).ok();
    assert!(same.out.contains("They do not differ"), "{}", same.out);

    world.write("files/app/new.txt", "new");
    world.write("files/lib/six-1.16.0.dist-info/METADATA", "Name: six\nVersion: 1.17.0\n");
    let stack = fs::read_to_string(world.stack().join("stack.hcl")).unwrap();
    world.write("stack.hcl", &stack.replace("from = \"scratch\"", "from = \"scratch\"\n  user = \"7\""));
    world.kiln(&["bake"]).ok();
    let differs = world.kiln(&["image", "diff", &first, "demo/web"]).ok();
    let rows: Vec<Vec<&str>> = differs.out.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        &["~", "user", "\"\"", "→", "\"7\""][..],
        &["~", "pypi", "six", "1.16.0", "→", "1.17.0"],
        &["+", "/app/new.txt", "3", "B"],
    ] {
        assert!(rows.iter().any(|found| found == row), "{row:?} is not in\n{}", differs.out);
    }
    let answer: Value =
        serde_json::from_str(&world.kiln(&["image", "diff", &first, "demo/web", "--json"]).ok().out).unwrap();
    let paths: Vec<_> = answer["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(paths, ["/app/new.txt", "/lib/six-1.16.0.dist-info/METADATA"]);
    assert_eq!(world.kiln(&["image", "diff", &first, "nothing"]).code, 3);
}

/// Runs a program of the machine's, and tells whether it succeeded.
fn succeeds(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().unwrap().status.success()
}

#[test]
fn a_signature_is_good_for_its_key_and_image_alone_and_openssl_agrees() {
    let world = World::new();
    world.kiln(&["bake"]).ok();
    let file = |name: &str| world.folder.path().join(name).display().to_string();
    for (name, kind) in [("own", "p256"), ("edward", "ed25519")] {
        world.kiln(&["image", "keygen", &file(name), "--type", kind]).ok();
        assert!(succeeds("openssl", &["pkey", "-in", &file(&format!("{name}.key")), "-noout"]));
        let refused = world.kiln(&["image", "keygen", &file(name)]);
        assert_eq!(refused.code, 3, "{}", refused.err);
    }
    let openssl = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
    assert!(succeeds("openssl", &[&openssl[..], &[&file("other.key")]].concat()));
    assert!(succeeds("openssl", &["pkey", "-in", &file("other.key"), "-pubout", "-out", &file("other.pub")]));

    let verify = |key: &str| world.kiln(&["image", "verify", "demo/web", "--key", &file(key)]);
    let unsigned = verify("own.pub");
    assert_eq!((unsigned.code, unsigned.err.contains("it has no signature")), (1, true), "{}", unsigned.err);
    for key in ["own", "edward", "other"] {
        assert_eq!(verify(&format!("{key}.pub")).code, 1);
        world.kiln(&["image", "sign", "demo/web", "--key", &file(&format!("{key}.key"))]).ok();
        let signed = verify(&format!("{key}.pub")).ok();
        for predicate in ["slsa.dev/provenance", "spdx.dev", "cyclonedx.org"] {
            assert!(signed.out.contains(predicate), "{}", signed.out);
        }
    }
    assert_eq!(verify("own.key").code, 3, "a private key is none to check with");

    // What `cosign verify --key` does: the annotation is a signature of the layer's bytes.
    let said = referrers(&world, "demo/web");
    let (_, manifest) = said.iter().find(|(kind, _)| kind.ends_with("sig.v1+json")).unwrap();
    let blob = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").unwrap();
        world.folder.path().join("state/store/blobs/sha256").join(&hex[..2]).join(hex)
    };
    let manifest: Value = serde_json::from_slice(&fs::read(blob(manifest)).unwrap()).unwrap();
    let layer = &manifest["layers"][0];
    fs::write(file("sig.b64"), layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap())
        .unwrap();
    assert!(succeeds("openssl", &["base64", "-d", "-A", "-in", &file("sig.b64"), "-out", &file("sig")]));
    let payload = blob(layer["digest"].as_str().unwrap()).display().to_string();
    let check = |key: &str| {
        succeeds("openssl", &["dgst", "-sha256", "-verify", &file(key), "-signature", &file("sig"), &payload])
    };
    assert!(check("own.pub") && !check("other.pub"));

    // Another image, with nothing signed.
    world.write("files/more", "more");
    world.kiln(&["bake"]).ok();
    assert_eq!(verify("own.pub").code, 1);
}

#[test]
fn a_dockerfile_is_proven_or_its_step_is_blamed() {
    let world = World::planted(&[]);
    let stack = "stack \"demo\" {}\n\nimage \"web\" {\n  dockerfile = \"./files\"\n}\n";
    world.write("stack.hcl", stack);
    let lines = "FROM scratch\nCOPY plant /plant\n";
    world.write("files/Dockerfile", &format!("{lines}RUN [\"/plant\", \"nothing\", \"/same\"]\n"));
    let proven = world.kiln(&["bake", "--prove"]).ok();
    assert!(proven.out.contains("proven, certificate"), "{}", proven.out);
    world.write("files/Dockerfile", &format!("{lines}RUN [\"/plant\", \"random\", \"/key\"]\n"));
    let differs = world.kiln(&["bake", "--prove"]);
    assert_eq!(differs.code, 1, "{}{}", differs.out, differs.err);
    let blamed = differs.out.lines().skip_while(|line| !line.contains("differs in step `RUN "));
    assert!(blamed.skip(1).any(|line| line.starts_with("  /key: content from byte 4: ")), "{}", differs.out);
}

#[test]
fn what_a_stage_made_differently_is_blamed_on_its_step_and_not_on_the_copy() {
    let world = World::planted(&[]);
    let stack = "stack \"demo\" {}\n\nimage \"web\" {\n  dockerfile = \"./files\"\n}\n";
    world.write("stack.hcl", stack);
    let dockerfile = "FROM scratch AS keys\nCOPY plant /plant\nRUN [\"/plant\", \"nothing\", \"/same\"]\n\
        RUN [\"/plant\", \"random\", \"/key\"]\nRUN [\"/plant\", \"random\", \"/log\"]\n\
        FROM scratch AS made\nCOPY --from=keys /key /made/key\nCOPY plant /plant\n\
        RUN [\"/plant\", \"random\", \"/made/own\"]\n\
        FROM scratch\nCOPY plant /plant\nCOPY --from=made /made /srv\nCOPY --from=keys /same /same\n";
    world.write("files/Dockerfile", dockerfile);
    let differs = world.kiln(&["bake", "--prove"]);
    assert_eq!(differs.code, 1, "{}{}", differs.out, differs.err);
    let lines: Vec<&str> = differs.out.lines().skip(1).collect();
    let [key_step, key, own_step, own] = lines[..] else { panic!("{}", differs.out) };
    assert_eq!(key_step, "web differs in step `RUN [\"/plant\", \"random\", \"/key\"]` of stage keys:");
    assert!(key.starts_with("  /key: content from byte 4: "), "{key}");
    assert!(key.ends_with(" (in the image: /srv/key)"), "{key}");
    assert_eq!(own_step, "web differs in step `RUN [\"/plant\", \"random\", \"/made/own\"]` of stage made:");
    assert!(own.ends_with(" (in the image: /srv/own)"), "{own}");

    // Another name and another mode do not hide where a file is from.
    let renamed = "FROM scratch AS keys\nCOPY plant /plant\nRUN [\"/plant\", \"random\", \"/key\"]\n\
        FROM scratch\nCOPY plant /plant\nCOPY --from=keys --chmod=600 /key /k\n";
    world.write("files/Dockerfile", renamed);
    let answer: Value = serde_json::from_str(&world.kiln(&["--json", "bake", "--prove"]).out).unwrap();
    let steps = answer["proof"]["web"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 1, "{answer:#}");
    assert_eq!(steps[0]["of"], "stage keys");
    assert_eq!(steps[0]["files"][0]["path"], "/key");
    assert_eq!(steps[0]["files"][0]["copies"][0], "/k");
}

#[test]
fn a_secret_of_a_bake_is_seen_by_its_command_and_shown_nowhere() {
    let world = World::new();
    let stack = "stack \"demo\" {}\n\nsecret \"token\" {\n  file = \"secrets/token\"\n}\n\n\
                 image \"web\" {\n  dockerfile = \"./files\"\n  secrets    = { npm = secret.token }\n}\n";
    world.write("stack.hcl", stack);
    // Whatever is copied of the folder, the file is not in it.
    let dockerfile = "FROM scratch\nCOPY os /\nCOPY . /all\n\
                      RUN --mount=type=secret,id=npm,required [\"/busybox\", \"sh\", \"-c\", \"/busybox wc -c < /run/secrets/npm > /size\"]\n";
    world.write("files/Dockerfile", dockerfile);
    fs::create_dir_all(world.stack().join("files/os")).unwrap();
    fs::copy("/bin/busybox", world.stack().join("files/os/busybox")).unwrap();
    let missing = world.kiln(&["bake"]);
    assert_eq!(missing.code, 4, "{}", missing.err);
    assert!(missing.err.contains("`secret.token` has no value"), "{}", missing.err);
    assert!(missing.err.contains("--> files/Dockerfile:4"), "{}", missing.err);

    world.write("secrets/token", "correct-horse\n");
    // The second bake has a copy of the folder, and the same secret.
    let proven = world.kiln(&["bake", "--prove"]).ok();
    assert!(proven.out.contains("proven, certificate"), "{}", proven.out);
    world.write("secrets/token", "battery-staple\n");
    let again = world.kiln(&["bake"]).ok();
    assert!(again.err.contains("RUN --mount=type=secret") && again.err.contains("cached"), "{}", again.err);
    let provenance = world.kiln(&["image", "provenance", "demo/web"]).ok().out;
    assert!(provenance.contains("secret token"), "{provenance}");
    for value in ["correct-horse", "battery-staple"] {
        let kept = Command::new("grep").args(["-rla", value]).arg(world.folder.path().join("state")).output();
        let kept = kept.unwrap().stdout;
        assert!(kept.is_empty(), "{}", String::from_utf8_lossy(&kept));
        assert!(!format!("{}{}{}{}", proven.out, proven.err, again.err, provenance).contains(value));
    }
}

/// Serves one file, which may change, to whoever asks, as long as the test runs.
fn serve(content: std::sync::Arc<std::sync::Mutex<&'static str>>) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/tool", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let body = *content.lock().unwrap();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    url
}

#[test]
fn the_file_of_a_url_is_locked_by_the_first_bake_and_verified_by_every_later_one() {
    let world = World::new();
    let content = std::sync::Arc::new(std::sync::Mutex::new("first"));
    let url = serve(content.clone());
    world.write("stack.hcl", "stack \"demo\" {}\n\nimage \"web\" {\n  dockerfile = \"./files\"\n}\n");
    world.write("files/Dockerfile", &format!("FROM scratch\nARG AT={url}\nADD --chmod=755 $AT /tool\n"));
    let first = world.kiln(&["--json", "bake"]).ok().out;
    let lock = fs::read_to_string(world.stack().join("kiln.lock")).unwrap();
    let sum = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
    assert!(lock.contains(&format!("\nurl {url} sha256:{sum}\n")), "{lock}");
    let provenance = world.kiln(&["image", "provenance", "demo/web"]).ok().out;
    assert!(provenance.contains(&url) && provenance.contains(sum), "{provenance}");

    // Another machine, and other bytes on the server.
    *content.lock().unwrap() = "second";
    let other = world.folder.path().join("other");
    let refused = world.kiln_in(&other, &["bake"]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    for text in ["files/Dockerfile:3", "is not what kiln.lock says", sum, "kiln lock --upgrade"] {
        assert!(refused.err.contains(text), "{text} is not in {}", refused.err);
    }
    assert_eq!(world.kiln(&["--json", "bake"]).ok().out, first, "what was fetched is enough here");
    assert!(world.kiln_in(&other, &["lock", "--upgrade"]).ok().out.contains("1 file"));
    assert_ne!(world.kiln_in(&other, &["--json", "bake"]).ok().out, first);

    // What is not locked is not fetched behind anybody's back.
    world.write("files/Dockerfile", &format!("FROM scratch\nADD {url}/more /tool\n"));
    let stale = world.kiln(&["bake"]);
    assert_eq!(stale.code, 3, "{}", stale.err);
    assert!(stale.err.contains(&format!("the file of `{url}/more` is not locked")), "{}", stale.err);
}

#[test]
fn a_commit_of_a_repository_is_locked_by_the_first_bake_and_what_is_made_of_it_is_proven() {
    let (world, origin) = (World::new(), origin::Origin::new());
    let commit = origin.write("docs/a.md", "text").commit();
    fs::write(origin.path("docs/a.md"), "uncommitted").unwrap();
    let address = format!("{}#main:docs", origin.server.url());
    world.write("stack.hcl", "stack \"demo\" {}\n\nimage \"web\" {\n  dockerfile = \"./files\"\n}\n");
    world.write("files/Dockerfile", &format!("FROM scratch\nADD {address} /docs\n"));
    world.kiln(&["bake"]).ok();
    let lock = fs::read_to_string(world.stack().join("kiln.lock")).unwrap();
    assert!(lock.contains(&format!("\ngit {address} {commit} sha256:")), "{lock}");
    let asked = origin.server.asked();
    let proven = world.kiln(&["bake", "--prove"]).ok();
    assert!(proven.out.contains("proven, certificate"), "{}", proven.out);
    assert_eq!(origin.server.asked(), asked, "what was locked is there");
    let provenance = world.kiln(&["image", "provenance", "demo/web"]).ok().out;
    assert!(provenance.contains(&format!("git+{address}")) && provenance.contains(&commit), "{provenance}");
}
