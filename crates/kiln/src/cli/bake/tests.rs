use std::fs;

use kiln_model::EnvName;
use kiln_store::snapshot::SnapshotKind;
use kiln_store::{Kind as TreeKind, ReadError, TreePath};
use tempfile::TempDir;

use super::*;
use crate::cli::deploy::folder::Content;
use crate::cli::screen::Paint;

const STACK: &str = "stack \"demo\" {}\n\nimage \"web\" {\n  from = \"scratch\"\n\n  copy {\n    from = \"./files\"\n    to   = \"/\"\n  }\n}\n";

/// A folder that was listed, and a store.
struct Place {
    folder: TempDir,
    _state: TempDir,
    state: StateDir,
    oven: Oven,
    declared: Declared,
    screen: Screen,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(folder.path().join("files")).unwrap();
        for (name, text) in [("stack.hcl", STACK)].iter().chain(files) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let kept = tempfile::tempdir_in("/var/tmp").unwrap();
        let (state, mut screen) = (StateDir::new(kept.path()), Screen::new(false));
        let env = EnvName::new("dev").unwrap();
        let declared = load::declared(folder.path(), &env, &[], &state, &mut screen)
            .unwrap_or_else(|failure| panic!("{}", failure.text(Paint::PLAIN)));
        let oven = Oven::open(&state, folder.path())
            .unwrap_or_else(|failure| panic!("{}", failure.text(Paint::PLAIN)));
        Self { folder, _state: kept, state, oven, declared, screen }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn make(&mut self) -> Result<Result<Made, BakeError>, Failure> {
        let (oven, declared, screen) = (&self.oven, &mut self.declared, &mut self.screen);
        let (lock, interrupt) = (Lock::default(), Interrupt::default());
        make((oven, Cache::Used), (declared, &self.state), &lock, screen, &interrupt)
    }

    fn made(&mut self) -> Made {
        let made = self.make().unwrap_or_else(|failure| panic!("{}", failure.text(Paint::PLAIN)));
        made.unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a file of the snapshot says.
    fn captured(&self, made: &Made, name: &str) -> Option<String> {
        let path = TreePath::parse(name).unwrap();
        let files = self.oven.store.snapshots.load(&made.source).unwrap().files;
        let file = files.into_iter().find(|file| file.path == path)?;
        let SnapshotKind::File { digest, .. } = file.kind else { panic!("{name} is a file") };
        Some(String::from_utf8(self.oven.store.blobs.read_verified(&digest).unwrap()).unwrap())
    }

    /// What a file of the image says.
    fn baked(&self, made: &Made, name: &str) -> Option<String> {
        let image = made.baked.images.values().next().unwrap();
        let tree = self.oven.store.trees.load(&image.tree).unwrap();
        match tree.get(&TreePath::parse(name).unwrap())?.kind {
            TreeKind::File { ref digest, .. } => Some(
                String::from_utf8(self.oven.store.objects.read_verified(digest, 1 << 20).unwrap()).unwrap(),
            ),
            _ => panic!("{name} is a file"),
        }
    }
}

fn manifest(made: &Made) -> Digest {
    made.baked.images.values().next().unwrap().manifest
}

#[test]
fn a_file_that_changes_after_the_folder_was_listed_is_baked_as_it_is_by_then() {
    let mut place = Place::new(&[("files/motd", "then"), ("files/kept", "kept"), ("files/gone", "gone")]);
    place.write("files/motd", "and now");
    place.write("files/came", "came");
    fs::remove_file(place.folder.path().join("files/gone")).unwrap();
    let made = place.made();
    assert!(place.declared.changed);
    for (name, text) in
        [("motd", Some("and now")), ("kept", Some("kept")), ("came", Some("came")), ("gone", None)]
    {
        assert_eq!(place.captured(&made, &format!("files/{name}")).as_deref(), text, "{name}");
        assert_eq!(place.baked(&made, name).as_deref(), text, "{name}");
    }
    // It is what a folder comes to that always was like that.
    let mut other = Place::new(&[("files/motd", "and now"), ("files/kept", "kept"), ("files/came", "came")]);
    let same = other.made();
    assert!(!other.declared.changed);
    assert_eq!((same.source, manifest(&same)), (made.source, manifest(&made)));
    // What is baked next was listed, and nothing is found to have changed.
    place.declared.changed = false;
    assert_eq!(manifest(&place.made()), manifest(&made));
    assert!(!place.declared.changed);
}

#[test]
fn what_was_stored_when_it_was_listed_is_baked_as_it_was_listed() {
    let mut place = Place::new(&[("files/motd", "then")]);
    let first = place.made();
    place.write("files/motd", "now");
    let made = place.made();
    assert!(!place.declared.changed);
    assert_eq!((made.source, manifest(&made)), (first.source, manifest(&first)));
    assert_eq!(place.baked(&made, "motd").as_deref(), Some("then"));
}

#[test]
fn the_stack_is_captured_as_it_was_evaluated() {
    let mut place = Place::new(&[("files/motd", "then")]);
    place.write("stack.hcl", "stack \"other\" {}");
    place.write("files/motd", "now");
    let made = place.made();
    assert_eq!(place.captured(&made, "stack.hcl").as_deref(), Some(STACK));
    assert_eq!(place.captured(&made, "files/motd").as_deref(), Some("now"));
    let Content::File { digest, .. } = place.declared.listing[b"stack.hcl".as_slice()].content else {
        panic!("a file")
    };
    assert!(!place.oven.store.blobs.contains(&digest), "what it says by now was never evaluated");
}

#[test]
fn a_store_that_can_not_be_written_to_is_told_whatever_became_of_the_bake() {
    let mut place = Place::new(&[("files/motd", "then")]);
    fs::remove_dir(place.state.path().join("store/tmp")).unwrap();
    let Err(failure) = place.make() else { panic!("nothing could be stored") };
    let text = failure.text(Paint::PLAIN);
    assert!(text.contains("the stack folder can't be captured"), "{text}");
    assert!(text.contains("free some space on the disk of the state folder"), "{text}");
    assert!(!place.declared.changed);
}

#[test]
fn a_damaged_snapshot_is_an_error_of_the_bake_which_is_mended() {
    let mut place = Place::new(&[("files/motd", "then")]);
    let first = place.made();
    let path = place.oven.store.blobs.path_of(&first.source);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let Ok(Err(error)) = place.make() else { panic!("its bytes are others") };
    assert!(
        matches!(&error, BakeError::Source(SourceError::Snapshot(ReadError::Corrupt { .. }))),
        "{error:?}"
    );
    let Ok(true) = discard_culprit(&place.oven.store, &error, &mut place.screen) else {
        panic!("it is named")
    };
    let again = place.made();
    assert_eq!((again.source, manifest(&again)), (first.source, manifest(&first)));
    assert!(place.oven.store.blobs.read_verified(&first.source).is_ok());
}
