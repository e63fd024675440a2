//! What other targets read beside their own: archives that ADD unpacks, and files of lines that users write.

use std::io::Cursor;

use kiln_store::Store;

use super::archive::{packing, read};
use super::dockerignore::DockerIgnore;
use crate::{Ignore, Lock};

/// Unpacks bytes as ADD does, and says what became of them.
pub(crate) fn unpack(store: &Store, bytes: &[u8]) -> String {
    let batch = store.objects.batch();
    let Some(packing) = packing(bytes) else { return "no archive".into() };
    let tree = read(Cursor::new(bytes.to_vec()), packing, bytes.len() as u64, &batch, 0);
    format!("{:?}", tree.map(|tree| tree.len().min(8)))
}

/// Reads a text as each of them, and says what became of it.
pub(crate) fn settings(text: &str) -> String {
    let long = b"a/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/c.txt";
    let ignore = Ignore::new(text).map(|ignore| ignore.leaves_out(long, false));
    let docker = DockerIgnore::new(text).map(|ignore| ignore.leaves_out(long));
    let lock = Lock::parse(text);
    if let Ok(lock) = &lock {
        let again = lock.to_string();
        assert_eq!(Lock::parse(&again).ok().as_ref(), Some(lock), "it is read as it was written");
    }
    format!("{ignore:?} {docker:?} {:?}", lock.map(|_| ()))
}
