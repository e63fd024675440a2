//! Removing from the packs what nothing needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use kiln_model::Digest;

use super::Packs;
use super::index::Index;
use super::read::PackError;
use super::write::Packer;
use crate::error::ReadError;

impl Packs {
    /// Removes what is not kept from the index, and packs that hold more of what is gone than of what is kept; returns how many
    /// items went, and the bytes that the disk gained.
    pub(crate) fn retain(&self, is_kept: impl Fn(&Digest) -> bool) -> Result<(u64, u64), PackError> {
        if self.is_empty() && self.data.list().map_err(|error| self.failed(error))?.is_empty() {
            return Ok((0, 0));
        }
        let _writing = self.writing()?;
        let before = self.bytes().map_err(|error| self.failed(error))?;
        let old = match self.index() {
            // Nobody knows what the packs hold: they stay, and whoever asks is told.
            Err(ReadError::Io { source, .. }) if source.kind() == ErrorKind::InvalidData => {
                return Ok((0, 0));
            }
            other => other?,
        };
        let mut items = old.items.clone();
        items.retain(|digest, _| is_kept(digest));
        let gone = (old.items.len() - items.len()) as u64;
        let live: BTreeSet<u32> = items.values().flat_map(|item| &item.parts).copied().collect();
        let sparse = sparse_packs(&old, &live);
        if gone > 0 || !sparse.is_empty() {
            self.write_anew(&old, items, &live, &sparse)?;
        }
        self.sweep()?;
        let after = self.bytes().map_err(|error| self.failed(error))?;
        Ok((gone, before.saturating_sub(after)))
    }

    /// Returns how many items [`Packs::retain`] would remove.
    pub(crate) fn unneeded(&self, is_kept: impl Fn(&Digest) -> bool) -> u64 {
        self.index().map_or(0, |index| index.items.keys().filter(|digest| !is_kept(digest)).count() as u64)
    }

    /// Writes an index of what is kept. The chunks of packs that are mostly garbage are copied into a new one.
    fn write_anew(
        &self,
        old: &Index,
        mut items: std::collections::HashMap<Digest, super::index::Item>,
        live: &BTreeSet<u32>,
        sparse: &BTreeSet<u32>,
    ) -> Result<(), PackError> {
        let mut index = Index::default();
        let (mut packs, mut frames, mut numbers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let pack_of = |number: u32| old.frames[old.chunks[number as usize].frame as usize].pack;
        for number in live.iter().copied().filter(|number| !sparse.contains(&pack_of(*number))) {
            let mut chunk = old.chunks[number as usize];
            let new_frame = frames.entry(chunk.frame).or_insert_with(|| {
                let mut frame = old.frames[chunk.frame as usize];
                frame.pack = *packs.entry(frame.pack).or_insert_with(|| {
                    index.packs.push(old.packs[frame.pack as usize]);
                    index.packs.len() as u32 - 1
                });
                index.frames.push(frame);
                index.frames.len() as u32 - 1
            });
            chunk.frame = *new_frame;
            numbers.insert(number, index.chunks.len() as u32);
            index.chunks.push(chunk);
        }
        let mut packer = Packer::new(self, index);
        for number in live.iter().copied().filter(|number| sparse.contains(&pack_of(*number))) {
            numbers.insert(number, packer.keep(&self.chunk(old, number)?)?);
        }
        for item in items.values_mut() {
            item.parts.iter_mut().for_each(|part| *part = numbers[part]);
        }
        packer.index.items = items;
        packer.finish().map(drop)
    }

    /// Removes packs that the index does not name: what a crash left, and what was written anew.
    fn sweep(&self) -> Result<(), PackError> {
        let named: BTreeSet<Digest> = self.index()?.packs.iter().copied().collect();
        for pack in self.data.list().map_err(|error| self.failed(error))? {
            if !named.contains(&pack) {
                self.data.remove(&pack).map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> PackError {
        crate::error::PutError::at(&self.root)(error).into()
    }
}

/// The packs of which less than half is live.
fn sparse_packs(index: &Index, live: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut bytes = vec![(0_u64, 0_u64); index.packs.len()];
    for frame in &index.frames {
        bytes[frame.pack as usize].0 += u64::from(frame.bytes);
    }
    for number in live {
        let chunk = index.chunks[*number as usize];
        bytes[index.frames[chunk.frame as usize].pack as usize].1 += u64::from(chunk.bytes);
    }
    let sparse = bytes.iter().zip(0..).filter(|((all, live), _)| live * 2 < *all);
    sparse.map(|(_, pack)| pack).collect()
}
