//! Images of registries as what a stack's images start from, between real processes. They need root.

use std::fs;

use serde_json::json;

use crate::server::{Registry, sha256};
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

/// A stack that wants what it starts from to be signed.
fn write_signed(place: &Place, from: &str, rule: &str) {
    let stack = format!(
        "stack \"web\" {{}}\n\nregistry \"{rule}\" {{\n  signed_by = [file(\"own.pub\")]\n}}\n\nimage \"web\" {{\n  from = \"{from}\"\n}}\n"
    );
    fs::write(place.path("stack.hcl"), stack).unwrap();
}

#[test]
fn a_base_that_is_not_signed_as_the_stack_wants_it_is_neither_locked_nor_baked() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    let name = at(&registry, "os/os:v1");
    bake_os(&one, "first");
    for key in ["own", "other"] {
        one.kiln(&["image", "keygen", key]).ok();
    }
    fs::copy(one.path("own.pub"), two.path("own.pub")).unwrap();
    let rule = at(&registry, "os");
    one.kiln(&["image", "push", "os/os", &name]).ok();
    write_signed(&two, &name, &rule);
    let wanted = format!("`{name}` is not signed as the rule for `{rule}` wants it");
    two.kiln(&["lock"]).failed(5, &[&wanted, "has no signature", "signed_by"]);
    assert!(!two.path("kiln.lock").exists());
    one.kiln(&["image", "sign", "os/os", "--key", "other.key"]).ok();
    one.kiln(&["image", "push", "os/os", &name]).ok();
    two.kiln(&["lock"]).failed(5, &[&wanted, "of other keys"]);

    // What was locked and baked while nothing was wanted is looked at again.
    write_signed(&two, &name, "registry.example");
    let baked = two.kiln(&["bake"]).ok();
    write_signed(&two, &name, &rule);
    two.kiln(&["bake"]).failed(5, &[&wanted, "of other keys"]);
    one.kiln(&["image", "sign", "os/os", "--key", "own.key"]).ok();
    one.kiln(&["image", "push", "os/os", &name]).ok();
    assert_eq!(two.kiln(&["bake"]).ok()["images"], baked["images"], "who signed is no part of an image");
    // Nor does a signature count of a key that is no longer named.
    one.kiln(&["image", "keygen", "third"]).ok();
    fs::rename(two.path("own.pub"), two.path("kept")).unwrap();
    fs::copy(one.path("third.pub"), two.path("own.pub")).unwrap();
    two.kiln(&["bake"]).failed(5, &[&wanted, "of other keys"]);
    fs::rename(two.path("kept"), two.path("own.pub")).unwrap();
    // The store has the signature now, so the registry is not needed.
    drop(registry);
    assert_eq!(two.kiln(&["bake", "--no-cache"]).ok()["images"], baked["images"]);
    fs::copy(one.path("other.pub"), two.path("own.pub")).unwrap();
    two.kiln(&["bake"]).ok();
}

#[test]
fn a_signature_of_the_list_for_all_machines_is_one_of_the_image_in_it() {
    let (registry, one, two) = (Registry::start(), Place::new(), Place::new());
    bake_os(&one, "first");
    one.kiln(&["image", "keygen", "own"]).ok();
    fs::copy(one.path("own.pub"), two.path("own.pub")).unwrap();
    let pushed = one.kiln(&["image", "push", "os/os", &at(&registry, "os/os:one")]).ok();
    let manifest = pushed["digest"].as_str().unwrap();
    let size = registry.get("/v2/os/os/manifests/one").body.len();
    let (oci, arch) =
        ("application/vnd.oci.image", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    let list = json!({
        "schemaVersion": 2, "mediaType": format!("{oci}.index.v1+json"),
        "manifests": [{
            "mediaType": format!("{oci}.manifest.v1+json"), "digest": manifest, "size": size,
            "platform": { "os": "linux", "architecture": arch },
        }],
    });
    let list = list.to_string().into_bytes();
    let digest = sha256(&list);
    let put = |tag: &str, kind: &str, bytes: &[u8]| {
        let kind = format!("{oci}.{kind}.v1+json");
        let path = format!("/v2/os/os/manifests/{tag}");
        assert_eq!(registry.send("PUT", &path, &[("Content-Type", &kind)], bytes).status, 201);
    };
    put("v1", "index", &list);
    let name = at(&registry, "os/os:v1");
    write_signed(&two, &name, "*");
    two.kiln(&["lock"]).failed(5, &["has no signature"]);

    // `cosign sign` of a name with a list signs the list; openssl makes the same signature.
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": name },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = payload.to_string();
    fs::write(one.path("payload"), &payload).unwrap();
    if !crate::clients::is_installed("openssl") {
        return;
    }
    let sign = "openssl dgst -sha256 -sign \"$0\" \"$1\" | openssl base64 -A";
    let signed = std::process::Command::new("sh")
        .args(["-c", sign])
        .args([one.path("own.key"), one.path("payload")])
        .output()
        .unwrap();
    let signature = String::from_utf8(signed.stdout).unwrap();
    let blob = |bytes: &[u8]| {
        let path = format!("/v2/os/os/blobs/uploads/?digest={}", sha256(bytes));
        assert_eq!(registry.send("POST", &path, &[], bytes).status, 201);
        json!({ "digest": sha256(bytes), "size": bytes.len() })
    };
    let mut config = blob(b"{}");
    config["mediaType"] = format!("{oci}.config.v1+json").into();
    let mut layer = blob(payload.as_bytes());
    layer["mediaType"] = "application/vnd.dev.cosign.simplesigning.v1+json".into();
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    let signatures = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    put(&format!("{}.sig", digest.replace(':', "-")), "manifest", signatures.to_string().as_bytes());
    two.kiln(&["lock"]).ok();
    let lock = fs::read_to_string(two.path("kiln.lock")).unwrap();
    assert!(lock.contains(&format!("image {name} {manifest} of {digest}\n")), "{lock}");
    two.kiln(&["bake"]).ok();
}

/// Writes a setting of this machine about registries, of those that a [`Place`] has for itself.
fn set(place: &Place, name: &str, text: &str) {
    let path = place.path("config").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Pushes an image, starts another from it, and pulls what was pushed.
fn push_start_and_pull(place: &Place, name: &str) {
    bake_os(place, "first");
    place.kiln(&["image", "push", "os/os", name]).ok();
    write_web(place, name);
    place.kiln(&["bake"]).ok();
    place.kiln(&["image", "pull", name]).ok();
}

#[test]
fn a_registry_with_an_authority_of_its_own_is_trusted_by_the_settings_that_docker_has() {
    let place = Place::new();
    let Some((cert, key)) = crate::start::certificate(&place.path("")) else { return };
    let registry = Registry::start_with(&["--tls-cert", &cert, "--tls-key", &key]);
    let name = at(&registry, "os/os:v1");
    bake_os(&place, "first");
    let host = registry.client.address;
    place.kiln(&["image", "push", "os/os", &name]).failed(5, &[&host.to_string()]);
    set(&place, &format!("containers/certs.d/{host}/ca.crt"), &fs::read_to_string(&cert).unwrap());
    push_start_and_pull(&place, &name);
}

#[test]
fn a_registry_of_another_machine_is_spoken_to_without_tls_where_docker_would_be_too() {
    let (registry, place) = (Registry::start(), Place::new());
    // It leads to this machine, and is no name of it.
    let host = format!("0.0.0.0:{}", registry.client.address.port());
    let name = format!("{host}/os/os:v1");
    bake_os(&place, "first");
    place.kiln(&["image", "push", "os/os", &name]).failed(5, &[&host]);
    set(&place, "docker/daemon.json", &json!({ "insecure-registries": [&host] }).to_string());
    push_start_and_pull(&place, &name);
    set(&place, "docker/daemon.json", "{");
    place.kiln(&["image", "pull", &name]).failed(5, &["docker/daemon.json can't be used"]);
}

#[test]
fn images_of_folders_and_files_are_locked_and_baked_from() {
    let (one, two) = (Place::new(), Place::new());
    let (folder, file) = (two.path("bases/os"), two.path("os.tar"));
    let to = |kind: &str, path: &std::path::Path, rest: &str| format!("{kind}:{}:{rest}", path.display());
    let (folder, file) = (to("oci", &folder, "v1"), to("docker-archive", &file, "team/os:v1"));
    bake_os(&one, "first");
    let first = one.kiln(&["image", "push", "os/os", &folder]).ok()["digest"].clone();
    one.kiln(&["image", "push", "os/os", &file]).ok();
    write_web(&two, "oci:bases/../bases/os:v1");
    let stack = fs::read_to_string(two.path("stack.hcl")).unwrap();
    let contexts = "contexts   = { os = \"docker-archive:os.tar:team/os:v1\" }";
    let stack = stack.replace("dockerfile = \"./web\"", &format!("dockerfile = \"./web\"\n  {contexts}"));
    fs::write(two.path("stack.hcl"), stack).unwrap();
    fs::write(two.path("web/Dockerfile"), "FROM os\nENV MORE=2\nCOPY own /own\n").unwrap();
    // They need not be captured: what is locked decides.
    fs::write(two.path(".kilnignore"), "/bases\n/os.tar\n").unwrap();
    let baked = two.kiln(&["bake"]).ok();
    let lock = fs::read_to_string(two.path("kiln.lock")).unwrap();
    assert!(lock.contains(&format!("image oci:./bases/os:v1 {}\n", first.as_str().unwrap())), "{lock}");
    assert!(lock.contains("image docker-archive:./os.tar:team/os:v1 sha256:"), "{lock}");
    for image in ["web/web", "web/filed"] {
        let shown = two.kiln(&["image", "show", image]).ok();
        assert_eq!(shown["env"], json!({ "FROM_OS": "1", "MORE": "2" }));
        assert_eq!(shown["unproven"], json!([]), "it follows from the lock");
    }
    // Elsewhere, where there is only a copy of what was captured.
    let proven = two.kiln(&["bake", "--prove"]).ok();
    assert_eq!(proven["proof"]["web"]["verdict"], "proven", "{proven}");

    // What is there changes, and the lock does not.
    bake_os(&one, "second");
    one.kiln(&["image", "push", "os/os", &folder]).ok();
    fs::remove_file(two.path("os.tar")).unwrap();
    one.kiln(&["image", "push", "os/os", &file]).ok();
    assert_eq!(two.kiln(&["bake", "--no-cache"]).ok()["images"], baked["images"]);
    fs::copy(two.path("kiln.lock"), two.path("old.lock")).unwrap();
    assert_eq!(two.kiln(&["lock", "--upgrade"]).ok()["changed"], true);
    let newer = two.kiln(&["bake"]).ok();
    assert_ne!(newer["images"]["web"], baked["images"]["web"]);
    assert_ne!(newer["images"]["filed"], baked["images"]["filed"]);

    // Whoever has not what was locked is told.
    let three = Place::new();
    let names = ["stack.hcl", "web", ".kilnignore", "bases", "os.tar", "old.lock"];
    let paths = names.iter().map(|name| two.path(name));
    let copied = std::process::Command::new("cp").arg("-r").args(paths).arg(three.path(".")).status();
    assert!(copied.unwrap().success());
    fs::copy(three.path("old.lock"), three.path("kiln.lock")).unwrap();
    three
        .kiln(&["bake"])
        .failed(5, &["`docker-archive:./os.tar:team/os:v1` is locked to", "kiln lock --upgrade"]);
    fs::remove_dir_all(three.path("bases")).unwrap();
    three.kiln(&["lock", "--upgrade"]).failed(5, &["can't be locked", "oci:./bases/os:v1"]);
}
