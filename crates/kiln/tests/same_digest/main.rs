//! The example's images are the same bytes, wherever and whenever they are baked from one lock.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One more image for the example: it holds what programs of several kinds say that the time is.
const DATED: &str = r#"
image "dated" {
  from = base.debian.python

  run {
    command = ["sh", "-ec", <<-EOT
      date > /dates
      env -i /bin/date +%s.%N >> /dates
      perl -e 'print time, " ", scalar localtime, "\n"' >> /dates
      python3 -c 'import time; print(time.time(), time.ctime(), time.time_ns())' >> /dates
      bash -c 'echo $EPOCHREALTIME; printf "%(%c)T\n"' >> /dates
      su nobody -s /bin/sh -c date >> /dates
      touch /touched
      EOT
    ]
  }
}
"#;

/// Another file system, umask, host name, processor, language, home and time of day; then the blobs are brought out, since
/// the file system goes with its namespace.
const ELSEWHERE: &str = r#"
    set -e
    mount -t tmpfs -o size=1g,mode=700 kiln-test "$OTHER"
    hostname elsewhere
    umask 077
    mkdir -p "$OTHER/a longer/way to" "$OTHER/home"
    cp -r "$SHOP" "$OTHER/a longer/way to/the shop"
    cd "$OTHER/a longer/way to/the shop"
    export HOME="$OTHER/home" TZ=Pacific/Kiritimati LANG=tr_TR.UTF-8 LC_ALL=tr_TR.UTF-8 SOURCE_DATE_EPOCH=1
    export KILN_TEST_CLOCK_WAS_READ="$OTHER/clock-was-read"
    LD_PRELOAD="$CLOCK" taskset -c 0 "$KILN" --state "$OTHER/state" --json bake
    test -e "$KILN_TEST_CLOCK_WAS_READ"
    cmp kiln.lock "$SHOP/kiln.lock"
    cp -r "$OTHER/state/store/blobs" "$OUT"
"#;

#[test]
fn the_examples_images_are_the_same_bytes_when_baked_elsewhere_at_another_time() {
    let folder = tempfile::Builder::new().prefix("kiln-digest-").tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| folder.path().join(name);
    let shop = at("shop");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop"), &shop);
    let stack = fs::read_to_string(shop.join("stack.hcl")).unwrap() + DATED;
    fs::write(shop.join("stack.hcl"), stack).unwrap();

    let kiln = env!("CARGO_BIN_EXE_kiln");
    let mut here = Command::new(kiln);
    here.arg("-C").arg(&shop).arg("--state").arg(at("state")).args(["--json", "bake"]);
    let here = images(&mut here);

    fs::create_dir(at("other")).unwrap();
    let mut there = Command::new("unshare");
    there.args(["--mount", "--uts", "sh", "-c", ELSEWHERE]);
    there.env("KILN", kiln).env("CLOCK", compile_clock(folder.path())).env("SHOP", &shop);
    there.env("OTHER", at("other")).env("OUT", at("blobs"));
    let there = images(&mut there);

    let names: Vec<&String> = here.keys().collect();
    assert_eq!(names, ["dated", "orders", "web"]);
    // The layers first: of two images that differ they tell where.
    for (name, manifest) in &here {
        let (ours, theirs) = (at("state/store/blobs"), at("blobs"));
        let (one, other) = (blobs(&ours, manifest), blobs(&theirs, &there[name]));
        for (index, (one, other)) in one.iter().zip(&other).enumerate() {
            assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "layer {index} of {name} differs");
        }
        assert_eq!(one.len(), other.len(), "{name}");
    }
    assert_eq!(here, there);

    let mut proof = Command::new(kiln);
    proof.arg("-C").arg(&shop).arg("--state").arg(at("state")).args(["--json", "bake", "--prove"]);
    let proof = answer(&mut proof);
    assert_eq!(proof["images"].as_object().unwrap(), &here);
    for name in here.keys() {
        assert_eq!(proof["proof"][name]["verdict"], "proven", "{proof}");
    }
}

/// Runs `kiln --json bake` and returns the digests that it answers with.
fn images(command: &mut Command) -> serde_json::Map<String, Value> {
    answer(command)["images"].as_object().unwrap().clone()
}

/// Runs a command that succeeds, and returns what it answers.
fn answer(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The files of all that an image's manifest names: its layers in order, and its config.
fn blobs(folder: &Path, manifest: &Value) -> Vec<PathBuf> {
    let file = |digest: &Value| {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        folder.join("sha256").join(&hex[..2]).join(hex)
    };
    let manifest: Value = serde_json::from_slice(&fs::read(file(manifest)).unwrap()).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().chain([&manifest["config"]]).map(|part| file(&part["digest"])).collect()
}

fn compile_clock(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("elsewhen.c"), folder.join("elsewhen.so"));
    fs::write(&source, include_str!("elsewhen.c")).unwrap();
    let status =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(status.unwrap().success(), "elsewhen.c compiles");
    library
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.unwrap().success());
    // What someone who tried the example locked is not part of it.
    let _ = fs::remove_file(to.join("kiln.lock"));
}
