//! Baking again after a change, where the bake works ahead: what comes out is what would have come out anyhow.

use std::fs;
use std::path::PathBuf;

use crate::World;

/// A base with a shell, and an image whose last command goes through what was copied.
fn world(last: &str) -> World {
    let world = World::new();
    let stack = "stack \"demo\" {}\n\nimage \"os\" {\n  from = \"scratch\"\n\n  copy {\n    from = \"./os\"\n    to   = \"/\"\n  }\n\n\
                 \x20 run {\n    command = [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n  }\n}\n\n\
                 image \"web\" {\n  dockerfile = \"./web\"\n  contexts   = { os = image.os }\n}\n";
    world.write("stack.hcl", stack);
    let busybox = world.stack().join("os/bin/busybox");
    fs::create_dir_all(busybox.parent().unwrap()).unwrap();
    fs::copy("/bin/busybox", &busybox).unwrap();
    let lock = "[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
    world.write("web/files/lib/Cargo.lock", lock);
    for number in 0..40 {
        world.write(&format!("web/files/{number}.txt"), &format!("file {number}\n"));
    }
    world.write("web/Dockerfile", &format!("FROM os\nCOPY files /srv\nRUN {last}\nCMD [\"/bin/sh\"]\n"));
    world
}

const SUMS: &str = "cd /srv && cat *.txt | sha256sum > /sums";

impl World {
    fn bake_again(&self) -> String {
        let answer = self.kiln(&["bake", "--json"]).ok().out;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["images"]["web"].as_str().unwrap().to_owned()
    }

    /// What the same folder comes to in a store where nothing is, and its software there.
    fn anew(&self) -> (String, String) {
        let state = tempfile::Builder::new().prefix("kiln-anew-").tempdir_in("/var/tmp").unwrap();
        let answer = self.kiln_in(state.path(), &["bake", "--json"]).ok().out;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let software = self.kiln_in(state.path(), &["image", "sbom", "demo/web"]).ok().out;
        (answer["images"]["web"].as_str().unwrap().to_owned(), software)
    }

    fn software(&self) -> String {
        self.kiln(&["image", "sbom", "demo/web"]).ok().out
    }

    fn foresight(&self) -> PathBuf {
        self.folder.path().join("state/store/cache/foresights/demo")
    }
}

#[test]
fn a_change_comes_to_the_same_with_what_was_foreseen_and_without() {
    let world = world(SUMS);
    let first = world.bake_again();
    world.write("web/files/7.txt", "changed\n");
    assert_ne!(world.bake_again(), first);
    let noted = fs::read_to_string(world.foresight()).unwrap();
    assert_eq!(noted.split(' ').count(), 2, "a snapshot, and the one tree that was read: {noted}");
    let gone = format!("sha256:{} sha256:{}\n", "0".repeat(64), "1".repeat(64));
    for (content, foreseen) in [("once", noted.as_str()), ("twice", "nonsense"), ("thrice", &gone)] {
        fs::write(world.foresight(), foreseen).unwrap();
        world.write("web/files/7.txt", content);
        let baked = world.bake_again();
        assert_eq!((baked, world.software()), world.anew(), "{content}");
    }
    // Nothing that an image is made of changed: the next bake of the same folder foresees nothing.
    world.write("notes.txt", "notes");
    let before = world.bake_again();
    let noted = fs::read_to_string(world.foresight()).unwrap();
    assert_eq!((world.bake_again(), fs::read_to_string(world.foresight()).unwrap()), (before, noted));
}

#[test]
fn the_software_of_an_image_is_that_of_its_own_tree_whatever_its_last_command_did() {
    for (last, version) in [
        (SUMS, Some("0.2.1")),
        ("sed -i s/0.2.1/0.2.2/ /srv/lib/Cargo.lock", Some("0.2.2")),
        ("rm /srv/lib/Cargo.lock", None),
        ("mv /srv/lib /opt", Some("0.2.1")),
    ] {
        let world = world(last);
        world.bake_again();
        let software = world.software();
        assert_eq!(software, world.anew().1, "{last}");
        let found =
            ["0.2.1", "0.2.2"].into_iter().find(|it| software.contains(&format!("pkg:cargo/libc@{it}")));
        assert_eq!(found, version, "{last}");
    }
}

#[test]
fn provenance_names_what_an_image_itself_was_made_from_whatever_it_begins_with() {
    let world = World::new();
    world.write("one.txt", "one");
    world.write("other.txt", "other");
    // What is made from another comes first by its name.
    let image = |name: &str, from: &str, file: &str| {
        format!(
            "image \"{name}\" {{\n  from = {from}\n\n  copy {{\n    from = \"./{file}\"\n    to   = \"/{file}\"\n  }}\n}}\n\n"
        )
    };
    let images = image("under", "\"scratch\"", "one.txt") + &image("a", "image.under", "other.txt");
    world.write("stack.hcl", &format!("stack \"demo\" {{}}\n\n{images}"));
    world.kiln(&["bake"]).ok();
    let names = |image: &str| {
        let statement = world.kiln(&["image", "provenance", image]).ok().out;
        let statement: serde_json::Value = serde_json::from_str(&statement).unwrap();
        let all = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        let names = all.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("demo/under"), ["one.txt"]);
    assert_eq!(names("demo/a"), ["one.txt", "other.txt"]);
}
