//! What fell out of retention is collected, and what can be gone back to never is.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use crate::machine::{Machine, tiny_stack, wait_for};

/// Revisions that are retained, as the core has it.
const RETAINED: usize = 10;
/// Revisions beyond that.
const BEYOND: usize = 2;

/// A stack whose image, snapshot and secret differ with each version, and whose old instances go at once.
fn write(machine: &Machine, version: &str) {
    machine.write_tiny(version, 1, "");
    machine.write("content", version);
    machine.write("token", format!("token of {version}"));
    let more = "secrets = { \"/run/secrets/token\" = secret.token }\n  rollout \"blue_green\" {\n    warm_for = \"0s\"\n  }";
    let stack = tiny_stack(machine.address, version, 1, more);
    let copy = "  copy {\n    from = \"./content\"\n    to   = \"/content\"\n  }\n";
    let stack = stack.replacen("  copy {", &format!("{copy}  copy {{"), 1);
    machine.write("stack.hcl", format!("{stack}\nsecret \"token\" {{\n  file = \"token\"\n}}\n"));
}

/// The digests of all images in the store.
fn images(machine: &Machine) -> BTreeSet<String> {
    let text = machine.kiln(&["image", "list", "--json"]).ok().out;
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let images = answer["images"].as_array().unwrap().iter();
    images.map(|image| image["digest"].as_str().unwrap().to_owned()).collect()
}

fn secrets(machine: &Machine) -> usize {
    fs::read_dir(machine.state().join("sealed/keys")).unwrap().count()
}

#[test]
fn what_can_be_gone_back_to_stays_and_the_rest_is_collected() {
    let machine = Machine::new();
    let mut baked = Vec::new();
    for number in 1..=RETAINED + BEYOND {
        write(&machine, &format!("v{number}"));
        machine.kiln(&["up"]).ok();
        let before: BTreeSet<String> = baked.iter().cloned().collect();
        let new = images(&machine).difference(&before).cloned().collect::<Vec<_>>();
        assert_eq!(new.len(), 1, "every version has an image of its own");
        baked.extend(new);
    }
    let kept: BTreeSet<String> = baked[BEYOND..].iter().cloned().collect();
    wait_for("the images of released revisions are gone", || (images(&machine) == kept).then_some(()));
    wait_for("their secrets are gone", || (secrets(&machine) == RETAINED).then_some(()));

    let looked = machine.kiln(&["image", "gc", "--dry-run"]).ok();
    assert!(looked.out.contains(&format!("tiny/dev#{} is current", RETAINED + BEYOND)), "{}", looked.out);
    assert!(looked.out.contains(&format!("tiny/dev#{} is retained", BEYOND + 1)), "{}", looked.out);
    machine.kiln(&["image", "gc", "--pack"]).ok();
    assert_eq!(images(&machine), kept);
    let packed = || machine.kiln(&["release", "list"]).ok().out.matches("retained, packed").count();
    assert_eq!(packed(), RETAINED - 1, "all but what runs");
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:v1", folder.path().join("out").display());
    machine.kiln(&["image", "push", &baked[BEYOND], &layout]).ok();
    machine.kiln(&["image", "diff", &baked[BEYOND], &baked[BEYOND + 1]]).ok();
    assert_eq!(packed(), RETAINED - 1, "who only reads leaves it packed");

    // Without the index nothing that is packed can be read.
    let index = machine.state().join("store/packs/index");
    let whole = fs::read(&index).unwrap();
    let replace = |bytes: &[u8]| {
        fs::write(index.with_extension("new"), bytes).unwrap();
        fs::rename(index.with_extension("new"), &index).unwrap();
    };
    replace(&whole[..whole.len() - 1]);
    for command in [&["status"][..], &["image", "gc"]] {
        let told = machine.kiln(command).ok().out;
        assert!(told.contains(&format!("! damaged: {}: ", index.display())), "{told}");
    }
    let refused =
        machine.kiln(&["rollback", &(BEYOND + 1).to_string()]).fails_with("can't go back to #3: image ");
    assert!(
        refused.err.contains(&format!("hint:  remove {}; then `kiln bake`", index.display())),
        "{}",
        refused.err
    );
    replace(&whole);
    assert_eq!(packed(), RETAINED - 1);

    let refused = machine.kiln(&["rollback", "1"]).fails_with("cannot roll back tiny/dev to #1");
    assert!(
        refused.err.contains("#1 is kept no longer: what only it needed was given up on 20"),
        "{}",
        refused.err
    );
    machine.kiln(&["rollback", "99"]).fails_with("tiny/dev has no revision #99");

    // None of their instances is left: each starts from its image, which is unpacked, with its secret.
    for number in (BEYOND + 1..RETAINED + BEYOND).rev() {
        machine.kiln(&["rollback", &number.to_string()]).ok();
        machine.wait_page(&format!("v{number}"));
    }
    assert_eq!((images(&machine), packed()), (kept.clone(), 0));
    // What is between the steps of a kept image was kept, too: nothing is copied again.
    let again = machine.kiln(&["up"]).ok();
    machine.wait_page(&format!("v{}", RETAINED + BEYOND));
    assert!(again.err.contains("copy content /content: cached"), "{}", again.err);

    // All of it is what a revision needs: a budget that it does not fit takes nothing of that, and says so.
    machine.kiln(&["host", "set", "--disk-budget", "1KiB"]).ok();
    let told = machine.kiln(&["image", "gc"]).ok();
    assert!(told.out.contains(" more than its budget of 1 KiB, for:"), "{}", told.out);
    let status = machine.kiln(&["status"]).ok();
    assert!(status.out.contains("packs of what can be gone back to"), "{}", status.out);
    assert_eq!(images(&machine), kept);
    machine.kiln(&["rollback", &(BEYOND + 1).to_string()]).ok();
    machine.wait_page(&format!("v{}", BEYOND + 1));
}

#[test]
fn a_collection_that_is_killed_or_meets_a_full_disk_loses_nothing_and_the_next_goes_on() {
    let machine = Machine::with_disk("48m");
    for version in ["v1", "v2"] {
        write(&machine, version);
        // Noise, so that packing takes a while.
        let noise: Vec<u8> = (0..1_000_000_u32).map(|at| (at.wrapping_mul(at | 1) >> 13) as u8).collect();
        machine.write("content", [version.as_bytes(), &noise].concat());
        machine.kiln(&["up"]).ok();
    }
    wait_for("the old ones are gone", || (machine.instances().len() == 1).then_some(()));
    let kept = images(&machine);
    assert_eq!(kept.len(), 2);
    let ballast = machine.fill_disk();
    let full = machine.kiln(&["image", "gc", "--pack"]);
    assert_eq!(full.code, 5, "{}{}", full.out, full.err);
    assert!(full.err.contains("no space left"), "{}", full.err);
    assert_eq!(images(&machine), kept);
    machine.wait_page("v2");
    fs::remove_file(ballast).unwrap();

    // Wherever it is cut, everything reads: who collects is the controller.
    for _ in 0..2 {
        let mut asks = machine.command(&["image", "gc", "--pack"]);
        let mut asks = asks.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        machine.kill("controller");
        asks.wait().unwrap();
        assert_eq!(images(&machine), kept);
    }
    machine.kiln(&["image", "gc", "--pack"]).ok();
    let packed = machine.kiln(&["release", "list"]).ok().out.matches("retained, packed").count();
    assert_eq!((images(&machine), packed), (kept, 1));
    machine.kiln(&["rollback"]).ok();
    machine.wait_page("v1");
    machine.kiln(&["audit", "verify"]).ok();
}
