//! The outcomes of steps, by what they were made from.
//!
//! A record is a name for bytes that are in the store anyway: it may be lost, and is written whole or not at all. Keys hold
//! the digest of everything that decides, so a record is never out of date.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use kiln_model::Digest;
use kiln_store::Store;

use crate::hashing::sha256;
use crate::layer::Layer;

/// Raised when the same inputs come to give another outcome: normalisers, layers, the way scripts are run.
const BAKE_VERSION: &str = "kiln bake 2";

/// A record is a line or two.
const RECORD_BYTES_MAX: u64 = 4096;

/// What a step is made from, all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepKey(Digest);

impl StepKey {
    /// Derives a key from the key of what the step is done to and a description of all that it does.
    pub(crate) fn new(parent: Option<StepKey>, description: &str) -> Self {
        let parent = parent.map_or(String::new(), |key| key.0.to_string());
        Self(sha256(format!("{BAKE_VERSION}\n{parent}\n{description}").as_bytes()))
    }
}

/// What is being made right now, so that nobody makes the same at the same time.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<Vec<StepKey>>,
    freed: Condvar,
}

/// The right to make one thing, given back with the value.
#[derive(Debug)]
pub(crate) struct Claim<'a>(&'a Claims, StepKey);

impl Claims {
    /// Waits until nobody else makes it.
    pub(crate) fn claim(&self, key: StepKey) -> Claim<'_> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.contains(&key) {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.push(key);
        Claim(self, key)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|key| *key != self.1);
        self.0.freed.notify_all();
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepRecord {
    /// The tree after it.
    pub(crate) tree: Digest,
    /// Its layer; none where it changed nothing.
    pub(crate) layer: Option<Layer>,
}

/// The records of a machine.
#[derive(Debug)]
pub(crate) struct StepCache {
    folder: PathBuf,
}

impl StepCache {
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Returns a step's outcome if it and all that it names are still in the store.
    pub(crate) fn step(&self, key: StepKey, store: &Store) -> Option<StepRecord> {
        let record = StepRecord::parse(&self.read(key)?)?;
        let whole = store.trees.contains(&record.tree)
            && record.layer.is_none_or(|layer| store.blobs.size(&layer.digest) == Some(layer.size));
        whole.then_some(record)
    }

    /// Notes a step's outcome.
    pub(crate) fn set_step(&self, key: StepKey, record: &StepRecord) {
        self.write(key, &record.to_string());
    }

    fn read(&self, key: StepKey) -> Option<String> {
        let path = self.folder.join(key.0.hex());
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= RECORD_BYTES_MAX);
        if small { fs::read_to_string(path).ok() } else { None }
    }

    /// A record that can't be written costs time at the next bake, and is no reason to fail this one.
    fn write(&self, key: StepKey, text: &str) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let partial = self.folder.join(format!(".{}.{number}", std::process::id()));
        let path = self.folder.join(key.0.hex());
        if fs::write(&partial, text).and_then(|()| fs::rename(&partial, path)).is_err() {
            let _ = fs::remove_file(partial);
        }
    }
}

impl std::fmt::Display for StepRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "tree {}", self.tree)?;
        if let Some(Layer { digest, size, diff_id }) = self.layer {
            writeln!(f, "layer {digest} {size} {diff_id}")?;
        }
        writeln!(f, "end")
    }
}

impl StepRecord {
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        let lines: Vec<&[&str]> = lines.iter().map(Vec::as_slice).collect();
        match lines.as_slice() {
            [["tree", tree], ["end"]] => Some(Self { tree: tree.parse().ok()?, layer: None }),
            [["tree", tree], ["layer", digest, size, diff_id], ["end"]] => {
                let (digest, diff_id) = (digest.parse().ok()?, diff_id.parse().ok()?);
                let layer = Layer { digest, size: size.parse().ok()?, diff_id };
                Some(Self { tree: tree.parse().ok()?, layer: Some(layer) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_what_it_prints_and_a_torn_one_is_none() {
        let digest = sha256(b"");
        let layer = Layer { digest, size: 7, diff_id: digest };
        for record in
            [StepRecord { tree: digest, layer: Some(layer) }, StepRecord { tree: digest, layer: None }]
        {
            let text = record.to_string();
            assert_eq!(StepRecord::parse(&text), Some(record));
            assert_eq!(StepRecord::parse(&text[..text.len() - 5]), None);
        }
    }

    #[test]
    fn a_key_depends_on_its_parent_and_its_description() {
        let a = StepKey::new(None, "a");
        assert_ne!(a, StepKey::new(None, "b"));
        assert_ne!(StepKey::new(Some(a), "b"), StepKey::new(None, "b"));
    }
}
