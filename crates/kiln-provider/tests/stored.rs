//! Instances whose root is a tree of the store, and whose secrets are sealed.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use kiln_model::ByteSize;
use kiln_model::image::{Image, ImageConfig};
use kiln_model::instance::{SecretRef, VolumeMount};
use kiln_provider::Provider;
use kiln_provider::host::StoredImages;
use kiln_store::sealed::SecretValue;
use kiln_store::{Entry, Sealed, Store, Tree, TreePath};
use world::{IMAGE, World, program, spec};

/// Stores an image that has nothing but the program and a user.
fn store_image(store: &Store) {
    let mut tree = Tree::new();
    let path = |text: &str| TreePath::parse(text).unwrap();
    let app = store.objects.put_file(program()).unwrap();
    tree.insert(&path("app"), Entry::file(0o755, app.digest, app.size)).unwrap();
    tree.insert(&path("etc"), Entry::dir(0o755)).unwrap();
    let passwd = "web:x:33:44::/home/web:/bin/sh\n";
    let digest = store.objects.put_bytes(passwd.as_bytes()).unwrap();
    tree.insert(&path("etc/passwd"), Entry::file(0o644, digest, passwd.len() as u64)).unwrap();
    let tree = store.trees.put(&tree).unwrap();
    let image =
        Image { manifest: IMAGE, tree, config: ImageConfig::default(), size_bytes: 0, unproven: Vec::new() };
    store.images.put(&image).unwrap();
}

#[test]
fn a_stored_tree_is_the_root_and_what_is_mounted_gets_a_place_in_it() {
    let mut world = World::without_host();
    let store = Store::open(world.state()).unwrap();
    store_image(&store);
    let sealed = Sealed::open(world.state()).unwrap();
    let (stack, name) = ("shop".parse().unwrap(), "db".parse().unwrap());
    let version = sealed.capture(&stack, &name, &SecretValue::new(b"hunter2".to_vec())).unwrap();
    world.start_with(Box::new(StoredImages::new(store, sealed)));
    world.host().prepare(&IMAGE).unwrap();

    let mut with = spec(&["write", "/x", "/data/kept", "/deep/scratch/x"]);
    with.user = "web".into();
    with.security.add_capabilities.insert("DAC_OVERRIDE".into());
    with.volumes.insert("/data".into(), VolumeMount { volume: "data".parse().unwrap(), read_only: false });
    with.scratch.insert("/deep/scratch".into(), ByteSize::from_mib(1));
    with.secrets.insert("/etc/keys/db".into(), SecretRef { name, version: version.clone() });
    let said = world.output(with.clone());
    assert!(said.contains("/x: Read-only file system"), "{said}");
    assert!(said.contains("/data/kept: written") && said.contains("/deep/scratch/x: written"), "{said}");

    with.argv = ["/app", "cat", "/etc/keys/db", "/etc/hosts"].map(str::to_owned).to_vec();
    let said = world.output(with.clone());
    assert!(said.starts_with("hunter2") && said.contains("localhost"), "{said}");

    with.secrets.get_mut("/etc/keys/db").unwrap().version = "never".into();
    let reason = world.refused(world.create(with));
    assert!(reason.contains("secret `db`") && reason.contains("no version"), "{reason}");
    let mut absent = spec(&[]);
    absent.image = kiln_model::Digest::new([9; 32]);
    let reason = world.refused(world.create(absent));
    assert!(reason.contains("not in the store"), "{reason}");
}
