//! Images of registries as what a stack's images start from, between real processes. They need root.

use std::fs;

use serde_json::json;

use crate::server::Registry;
use crate::transfer::{Place, at};

/// A stack whose image `os` is only what is pushed.
pub(crate) fn bake_os(place: &Place, text: &str) {
    fs::create_dir_all(place.path("files")).unwrap();
    fs::write(place.path("files/hello"), text).unwrap();
    let stack = "stack \"os\" {}\n\nimage \"os\" {\n  from = \"scratch\"\n  command = [\"/hello\"]\n  user = \"7:7\"\n  env = { FROM_OS = \"1\" }\n\n  copy {\n    from = \"./files\"\n    to   = \"/\"\n  }\n}\n";
    fs::write(place.path("stack.hcl"), stack).unwrap();
    place.kiln(&["bake"]).ok();
}

/// One image by the stack's `from`, one by a Dockerfile's.
fn write_web(place: &Place, from: &str) {
    fs::create_dir_all(place.path("web")).unwrap();
    fs::write(place.path("web/Dockerfile"), format!("FROM {from}\nENV MORE=2\nCOPY own /own\n")).unwrap();
    fs::write(place.path("web/own"), "own").unwrap();
    let stack = format!(
        "stack \"web\" {{}}\n\nimage \"web\" {{\n  from = \"{from}\"\n  env = {{ MORE = \"2\" }}\n\n  copy {{\n    from = \"./web/own\"\n    to   = \"/own\"\n  }}\n}}\n\nimage \"filed\" {{\n  dockerfile = \"./web\"\n}}\n"
    );
    fs::write(place.path("stack.hcl"), stack).unwrap();
}

#[test]
fn an_image_of_a_registry_is_locked_and_baked_from() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    let name = at(&registry, "os/os:v1");
    bake_os(&one, "first");
    let first = one.kiln(&["image", "push", "os/os", &name]).ok()["digest"].clone();
    write_web(&two, &name);
    let baked = two.kiln(&["bake"]).ok();
    let lock = fs::read_to_string(two.path("kiln.lock")).unwrap();
    let line = |digest: &serde_json::Value| format!("image {name} {}", digest.as_str().unwrap());
    assert!(lock.starts_with("kiln.lock 2\n") && lock.contains(&line(&first)), "{lock}");
    for image in ["web/web", "web/filed"] {
        let shown = two.kiln(&["image", "show", image]).ok();
        assert_eq!(shown["command"], json!(["/hello"]), "what it says is inherited: {shown}");
        assert_eq!(shown["user"], "7:7");
        assert_eq!(shown["env"], json!({ "FROM_OS": "1", "MORE": "2" }));
        assert_eq!(shown["unproven"], json!([]), "it follows from the lock");
    }
    // The registry has the base's own layer, under the same digest, so only the new one is sent.
    let pushed = two.kiln(&["image", "push", "web/web", &at(&registry, "os/os:web")]).ok();
    let manifest = registry.get("/v2/os/os/manifests/web").json();
    let base = registry.get("/v2/os/os/manifests/v1").json();
    assert_eq!(manifest["layers"][0], base["layers"][0], "{pushed}");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);

    // The tag moves, and the lock does not.
    bake_os(&one, "second");
    let second = one.kiln(&["image", "push", "os/os", &name]).ok()["digest"].clone();
    assert_ne!(first, second);
    assert_eq!(two.kiln(&["lock"]).ok()["changed"], false);
    assert_eq!(two.kiln(&["bake"]).ok()["images"], baked["images"]);
    assert_eq!(two.kiln(&["lock", "--upgrade"]).ok()["changed"], true);
    assert!(fs::read_to_string(two.path("kiln.lock")).unwrap().contains(&line(&second)));
    let newer = two.kiln(&["bake"]).ok();
    assert_ne!(newer["images"]["web"], baked["images"]["web"]);
    assert_ne!(newer["images"]["filed"], baked["images"]["filed"]);

    // What was fetched is enough when the registry is away.
    drop(registry);
    assert_eq!(two.kiln(&["bake", "--no-cache"]).ok()["images"], newer["images"]);
    two.kiln(&["lock", "--upgrade"]).failed(5, &["can't be locked", &name]);
}

#[test]
fn an_image_that_the_lock_lacks_is_refused() {
    let (registry, place) = (Registry::start(), Place::new());
    fs::write(place.path("kiln.lock"), "kiln.lock 1\n").unwrap();
    let name = at(&registry, "os/os:v1");
    write_web(&place, &name);
    place.kiln(&["bake"]).failed(3, &["kiln.lock is outdated", &name, "kiln lock"]);
    place.kiln(&["lock"]).failed(5, &["can't be locked", &name]);
}

#[test]
fn a_registry_that_gives_another_image_for_the_locked_digest_is_refused() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    let name = at(&registry, "os/os:v1");
    bake_os(&one, "first");
    let first = one.kiln(&["image", "push", "os/os", &name]).ok()["digest"].as_str().unwrap().to_owned();
    write_web(&two, &name);
    two.kiln(&["lock"]).ok();
    // What the disk of the registry has for the digest is the manifest of something else.
    let files = registry.files("repositories/os/os/_manifests");
    let stored = files.iter().find(|path| path.ends_with(&first[7..])).unwrap_or_else(|| panic!("{files:?}"));
    let mut bytes = fs::read(stored).unwrap();
    bytes.push(b'\n');
    fs::write(stored, bytes).unwrap();
    two.kiln(&["bake"]).failed(5, &["can't be baked", &name]);
    assert!(two.images().is_empty());
}
