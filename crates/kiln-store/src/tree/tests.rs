use super::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn sample() -> Tree {
    let mut tree = Tree::new();
    for dir in ["usr", "usr/bin", "usr-local", "etc"] {
        tree.insert(&path(dir), Entry::dir(0o755)).unwrap();
    }
    tree.insert(&path("usr/bin/env"), Entry::file(0o755, Digest::new([1; 32]), 10)).unwrap();
    tree.link(&path("usr/bin/env2"), &path("usr/bin/env")).unwrap();
    tree.insert(&path("bin"), Entry::symlink("usr/bin")).unwrap();
    tree
}

#[test]
fn an_entry_needs_a_real_folder_and_a_symlink_is_none() {
    let mut tree = sample();
    let file = Entry::file(0o644, Digest::new([2; 32]), 1);
    assert_eq!(
        tree.insert(&path("bin/x"), file.clone()),
        Err(TreeError::NotAFolder { path: path("bin/x"), blocker: path("bin") })
    );
    assert_eq!(tree.insert(&path("no/x"), file), Err(TreeError::NoFolder { path: path("no/x") }));
    assert!(tree.insert(&TreePath::root(), Entry::symlink("usr")).is_err());
    assert_eq!(tree, sample());
}

#[test]
fn removing_a_folder_removes_what_is_below_it_and_nothing_that_begins_alike() {
    let mut tree = sample();
    assert_eq!(tree.remove(&path("usr")), 4);
    assert!(tree.get(&path("usr-local")).is_some());
    assert_eq!(tree.len(), 4);
    assert_eq!(tree.size_bytes(), 0);
    assert_eq!(tree.remove(&TreePath::root()), 3);
    assert!(tree.is_empty());
}

#[test]
fn hard_links_share_attributes_and_count() {
    let mut tree = sample();
    assert_eq!(tree.links(&path("usr/bin/env")), 2);
    tree.set_meta(&path("usr/bin/env2"), Meta { mode: 0o700, ..Meta::default() }).unwrap();
    assert_eq!(tree.get(&path("usr/bin/env")).unwrap().meta.mode, 0o700);
    tree.remove(&path("usr/bin/env"));
    assert_eq!(tree.links(&path("usr/bin/env2")), 1);
    assert!(tree.link(&path("x"), &path("usr")).is_err(), "a folder has one name");
}

#[test]
fn trees_with_the_same_files_but_other_links_differ() {
    let mut tree = sample();
    let entry = tree.get(&path("usr/bin/env")).unwrap().clone();
    tree.insert(&path("usr/bin/env2"), entry).unwrap();
    assert_ne!(tree, sample());
    tree.link(&path("usr/bin/env"), &path("usr/bin/env2")).unwrap();
    assert_eq!(tree, sample());
}

#[test]
fn an_overlay_merges_folders_and_replaces_the_rest() {
    let mut tree = sample();
    let mut upper = Tree::new();
    upper.insert(&path("usr"), Entry::dir(0o700)).unwrap();
    upper.insert(&path("usr/new"), Entry::file(0o644, Digest::new([3; 32]), 1)).unwrap();
    upper.link(&path("usr/new2"), &path("usr/new")).unwrap();
    upper.insert(&path("etc"), Entry::symlink("usr")).unwrap();
    tree.overlay(&TreePath::root(), &upper).unwrap();
    assert_eq!(tree.get(&path("usr")).unwrap().meta.mode, 0o700);
    assert!(tree.get(&path("usr/bin/env")).is_some());
    assert_eq!(tree.links(&path("usr/new2")), 2);
    assert_eq!(tree.get(&path("etc")), Some(&Entry::symlink("usr")));
    tree.overlay(&path("usr/below"), &upper).unwrap();
    assert_eq!(tree.inode(&path("usr/below/usr/new")), tree.inode(&path("usr/below/usr/new2")));
}

#[test]
fn links_are_resolved_within_the_tree_only() {
    let mut tree = sample();
    tree.insert(&path("up"), Entry::symlink("../../../usr/bin/./")).unwrap();
    tree.insert(&path("loop"), Entry::symlink("loop/x")).unwrap();
    tree.insert(&path("usr/abs"), Entry::symlink("/bin/env")).unwrap();
    assert_eq!(tree.resolve(&path("up/env"), true), Ok(path("usr/bin/env")));
    assert_eq!(tree.resolve(&path("bin/new"), true), Ok(path("usr/bin/new")));
    assert_eq!(tree.resolve(&path("bin"), false), Ok(path("bin")));
    assert_eq!(tree.resolve(&path("usr/abs"), true), Ok(path("usr/bin/env")));
    assert_eq!(tree.resolve(&path("loop"), true), Err(ResolveError::TooManyLinks(path("loop"))));
    assert_eq!(tree.resolve(&path("no/new"), true), Err(ResolveError::Missing(path("no"))));
    assert_eq!(tree.resolve(&path("bin/env/x"), true), Err(ResolveError::NotAFolder(path("usr/bin/env"))));
}

#[test]
fn attributes_out_of_range_are_refused() {
    let mut tree = Tree::new();
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut entry = Entry::file(0o644, Digest::new([1; 32]), 1);
        change(&mut entry);
        entry
    };
    let xattr = |name: &[u8], size: usize| {
        let (name, value) = (name.to_vec(), vec![0; size]);
        with(&move |entry| {
            entry.meta.xattrs.insert(name.clone(), value.clone());
        })
    };
    for bad in [
        with(&|entry| entry.meta.mode = 0o100_644u32 as u16),
        with(&|entry| entry.meta.mtime.nanos = 1_000_000_000),
        with(&|entry| entry.meta.uid = u32::MAX),
        with(&|entry| entry.kind = Kind::Char { major: 0, minor: 0 }),
        with(&|entry| entry.kind = Kind::Block { major: 4096, minor: 0 }),
        with(&|entry| entry.kind = Kind::Symlink { target: Vec::new() }),
        with(&|entry| entry.kind = Kind::Symlink { target: b"a\0b".to_vec() }),
        xattr(b"user.", 1),
        xattr(b"weird.name", 1),
        xattr(b"user.big", 65_536),
    ] {
        assert!(matches!(tree.insert(&path("x"), bad.clone()), Err(TreeError::Invalid { .. })), "{bad:?}");
    }
    assert!(tree.insert(&path("x"), xattr(b"security.capability", 20)).is_ok());
}
