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
    world.write("web/files/lib/Cargo.lock", &lock("0.2.1"));
    for number in 0..40 {
        world.write(&format!("web/files/{number}.txt"), &format!("file {number}\n"));
    }
    world.write("web/Dockerfile", &format!("FROM os\nCOPY files /srv\nRUN {last}\nCMD [\"/bin/sh\"]\n"));
    world
}

fn lock(version: &str) -> String {
    format!(
        "[[package]]\nname = \"libc\"\nversion = \"{version}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n"
    )
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

    /// What was found in trees, by file.
    fn surveys(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("state/store/cache/surveys");
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect()
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
fn the_software_of_an_image_is_its_own_whatever_was_found_in_earlier_trees() {
    let world = world("true");
    let dockerfile = |last: &str| {
        let text = format!("FROM os\nCOPY lib /lib\nCOPY files /srv\nRUN {last}\nCMD [\"/bin/sh\"]\n");
        world.write("web/Dockerfile", &text);
    };
    let libc = || {
        let software = world.software();
        let versions = ["0.2.1", "0.2.2", "0.2.3"].into_iter();
        versions.filter(|it| software.contains(&format!("pkg:cargo/libc@{it}"))).collect::<Vec<_>>()
    };
    fs::remove_dir_all(world.stack().join("web/files/lib")).unwrap();
    world.write("web/lib/Cargo.lock", &lock("0.2.1"));
    dockerfile(SUMS);
    world.bake_again();
    assert_eq!(world.surveys().len(), 1, "of the tree that the files are copied into");
    type Loss = fn(PathBuf);
    let nothing: Loss = drop;
    let garbage: Loss = |file| fs::write(file, "nonsense").unwrap();
    let torn: Loss = |file| {
        let bytes = fs::read(&file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    let gone: Loss = |file| fs::remove_file(file).unwrap();
    for (content, loss) in [("once", nothing), ("twice", garbage), ("thrice", torn), ("again", gone)] {
        world.surveys().into_iter().for_each(loss);
        world.write("web/files/7.txt", content);
        let baked = world.bake_again();
        assert_eq!((baked, world.software()), world.anew(), "{content}");
        assert_eq!((world.surveys().len(), libc()), (1, vec!["0.2.1"]), "{content}");
    }
    world.write("web/files/more/Cargo.lock", &lock("0.2.2"));
    let copied = world.bake_again();
    assert_eq!(((copied, world.software()), libc()), (world.anew(), vec!["0.2.1", "0.2.2"]));
    for (last, expected) in [
        ("sed s/0.2.1/0.2.3/ /lib/Cargo.lock > /Cargo.lock", vec!["0.2.1", "0.2.2", "0.2.3"]),
        ("rm /lib/Cargo.lock", vec!["0.2.2"]),
        ("ln -s lib /link && mv /srv/more /srv/less", vec!["0.2.1", "0.2.2"]),
    ] {
        dockerfile(last);
        let ran = world.bake_again();
        assert_eq!(((ran, world.software()), libc()), (world.anew(), expected), "{last}");
    }
    // An image whose last step is a copy.
    fs::remove_dir_all(world.stack().join("web/files/more")).unwrap();
    world.write("web/Dockerfile", "FROM os\nCOPY lib /lib\nCOPY files /srv\nCMD [\"/bin/sh\"]\n");
    for (content, version) in [("once more", "0.2.1"), ("at last", "0.2.2")] {
        world.write("web/files/7.txt", content);
        world.write("web/lib/Cargo.lock", &lock(version));
        let copied = world.bake_again();
        assert_eq!(((copied, world.software()), libc()), (world.anew(), vec![version]), "{content}");
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
