use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::scope;

use super::*;
use crate::snapshot::SourceContent;
use crate::{PutError, ReadError, Store};

const LISTED: &[(&str, &str)] =
    &[("stack.hcl", "stack \"shop\" {}"), ("web/run.sh", "#!/bin/sh"), ("more", "")];

type Listed<R> = (TreePath, u16, ListedContent<R>);

fn store() -> (tempfile::TempDir, Store) {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    (state, store)
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn file<R>(name: &str, listed: &str, bytes: R) -> Listed<R> {
    let (digest, size) = (sha256(listed.as_bytes()), listed.len() as u64);
    (path(name), 0o640, ListedContent::File { digest, size, bytes })
}

/// Files of which one is read by something else.
fn files(odd: &'static str, reader: impl Read + Send + 'static) -> Vec<Listed<Box<dyn Read + Send>>> {
    let mut reader = Some(reader);
    let mut of = |&(name, text): &(&'static str, &'static str)| {
        let bytes: Box<dyn Read + Send> = match reader.take_if(|_| name == odd) {
            Some(reader) => Box::new(reader),
            None => Box::new(text.as_bytes()),
        };
        file(name, text, bytes)
    };
    LISTED.iter().map(&mut of).collect()
}

/// Yields nothing before it may.
struct Gated(Receiver<()>, &'static [u8]);

fn gated(bytes: &'static str) -> (Sender<()>, Gated) {
    let (open, gate) = channel();
    (open, Gated(gate, bytes.as_bytes()))
}

impl Read for Gated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Whether it was opened or its opener is gone.
        let _ = self.0.recv();
        self.1.read(buffer)
    }
}

struct Gone;

impl Read for Gone {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn is_empty(state: &tempfile::TempDir, store: &Store) -> bool {
    let leftovers = fs::read_dir(state.path().join("store/tmp")).unwrap().count();
    leftovers == 0 && store.blobs.list().unwrap().is_empty()
}

#[test]
fn what_is_captured_beside_is_the_snapshot_that_would_have_been_captured_before() {
    let ((_here, here), (_there, there)) = (store(), store());
    let links = [
        (path("web/latest"), SourceContent::Symlink(b"run.sh".to_vec())),
        (path("empty"), SourceContent::<&[u8]>::Dir),
    ];
    let before = LISTED.iter().map(|(name, text)| (path(name), SourceContent::File(text.as_bytes())));
    let before = before.chain(links).map(|(path, content)| (path, 0o740, content));
    let before = here.snapshots.capture(before).unwrap();
    let mut listed: Vec<_> = LISTED.iter().map(|(name, text)| file(name, text, text.as_bytes())).collect();
    listed.push((path("web/latest"), 0, ListedContent::Symlink(b"run.sh".to_vec())));
    listed.push((path("empty"), 0, ListedContent::Dir));
    let listed = listed.into_iter().map(|(path, mode, content)| (path, mode | 0o100, content));
    let capturing = there.snapshots.begin(listed.rev()).unwrap();
    assert_eq!(capturing.digest(), before);
    assert_eq!(there.snapshots.load(&before).unwrap(), here.snapshots.load(&before).unwrap());
    capturing.end().unwrap();
    assert_eq!(there.blobs.list().unwrap(), here.blobs.list().unwrap());
    assert_eq!(there.blobs.read_verified(&before).unwrap(), here.blobs.read_verified(&before).unwrap());
    // As somebody else sees it, who remembers nothing.
    let other = Snapshots::new(there.blobs.clone());
    assert_eq!(other.load(&before).unwrap(), here.snapshots.load(&before).unwrap());
}

#[test]
fn while_it_goes_on_the_snapshot_is_known_and_a_file_that_is_not_there_yet_is_waited_for() {
    let (_state, store) = store();
    let (open, gate) = gated("#!/bin/sh");
    let capturing = store.snapshots.begin(files("web/run.sh", gate)).unwrap();
    let digest = capturing.digest();
    let names: Vec<_> = store.snapshots.load(&digest).unwrap().files.into_iter().map(|it| it.path).collect();
    assert_eq!(names, ["more", "stack.hcl", "web/run.sh"].map(path));
    assert!(!store.blobs.contains(&digest), "nothing is named before all is stored");
    let capture = store.snapshots.under_way.captures().remove(0);
    let before = Arc::strong_count(&capture);
    let mut text = String::new();
    scope(|scope| {
        scope.spawn(|| {
            // Until the file is being waited for.
            while Arc::strong_count(&capture) == before {
                std::thread::yield_now();
            }
            open.send(()).unwrap();
            drop(open);
        });
        let wanted = sha256(b"#!/bin/sh");
        store.snapshots.open_file(&wanted).unwrap().read_to_string(&mut text).unwrap();
    });
    assert_eq!(text, "#!/bin/sh");
    capturing.end().unwrap();
    assert!(store.blobs.contains(&digest));
    let absent = sha256(b"of no capture");
    assert!(matches!(store.snapshots.open_file(&absent), Err(ReadError::Missing(it)) if it == absent));
}

#[test]
fn a_file_that_is_another_by_then_ends_it_and_nothing_is_stored() {
    let (state, store) = store();
    let capturing = store.snapshots.begin(files("web/run.sh", &b"#!/bin/bash"[..])).unwrap();
    let (digest, file) = (capturing.digest(), sha256(b"#!/bin/sh"));
    assert!(
        matches!(store.snapshots.open_file(&file), Err(ReadError::Missing(_))),
        "it is waited for in vain"
    );
    let error = capturing.end().unwrap_err();
    assert!(error.is_change(), "{error:?}");
    assert!(matches!(&error, CaptureError::File { path: it, .. } if *it == path("web/run.sh")), "{error:?}");
    assert!(matches!(store.snapshots.load(&digest), Err(ReadError::Missing(_))));
    assert!(is_empty(&state, &store));
}

#[test]
fn a_file_that_is_gone_by_then_is_a_change_as_well() {
    let (state, store) = store();
    let error = store.snapshots.begin(files("more", Gone)).unwrap().end().unwrap_err();
    assert!(error.is_change(), "{error:?}");
    assert!(is_empty(&state, &store));
}

#[test]
fn a_file_that_is_stored_is_not_read_again() {
    let (_state, store) = store();
    store.blobs.put_bytes(b"#!/bin/sh").unwrap();
    store.snapshots.begin(files("web/run.sh", Gone)).unwrap().end().unwrap();
    // All of them, now.
    let all = LISTED.iter().map(|(name, text)| file(name, text, Gone));
    store.snapshots.begin(all).unwrap().end().unwrap();
}

#[test]
fn a_store_that_can_not_be_written_to_is_no_change_of_the_folder() {
    let (state, store) = store();
    fs::remove_dir(state.path().join("store/tmp")).unwrap();
    let error = store.snapshots.begin(files("", Gone)).unwrap().end().unwrap_err();
    assert!(matches!(&error, CaptureError::File { source: PutError::Io { .. }, .. }), "{error:?}");
    assert!(!error.is_change());
    assert_eq!(store.blobs.list().unwrap(), []);
}

#[test]
fn a_snapshot_that_was_stored_and_is_damaged_is_found() {
    let (_state, store) = store();
    let first = store.snapshots.begin(files("", Gone)).unwrap();
    let digest = first.digest();
    first.end().unwrap();
    let mut bytes = fs::read(store.blobs.path_of(&digest)).unwrap();
    bytes[10] ^= 1;
    fs::write(store.blobs.path_of(&digest), bytes).unwrap();
    let error = store.snapshots.begin(files("", Gone)).unwrap().end().unwrap_err();
    assert!(matches!(&error, CaptureError::Stored(ReadError::Corrupt { .. })), "{error:?}");
    assert!(!error.is_change());
    store.blobs.remove(&digest).unwrap();
    store.snapshots.begin(files("", Gone)).unwrap().end().unwrap();
    assert!(store.blobs.read_verified(&digest).is_ok());
}

#[test]
fn dropping_it_waits_for_its_end() {
    let (_state, store) = store();
    let (open, gate) = gated("");
    let capturing = store.snapshots.begin(files("more", gate)).unwrap();
    let digest = capturing.digest();
    scope(|scope| {
        scope.spawn(move || drop(open));
        drop(capturing);
        assert!(store.blobs.contains(&digest));
    });
    assert!(store.snapshots.under_way.captures().is_empty());
}

#[test]
fn one_that_panics_leaves_nobody_waiting() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("a reader's own bug")
        }
    }
    let (state, store) = store();
    let capturing = store.snapshots.begin(files("more", Broken)).unwrap();
    assert!(matches!(store.snapshots.open_file(&sha256(b"")), Err(ReadError::Missing(_))));
    drop(capturing);
    assert!(is_empty(&state, &store));
}

#[test]
fn a_path_that_is_listed_twice_is_refused_at_once() {
    let (_state, store) = store();
    let twice = files("", Gone).into_iter().chain(files("", Gone));
    assert!(matches!(store.snapshots.begin(twice), Err(CaptureError::Twice(_))));
}
