//! Which step is to blame for what differs: of what a `COPY --from` brought, the one of the earlier stage that made it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::Digest;

use super::compare::{Change, CompareError, Difference, Facts, Pair, Side, changes, describe, of_config};

/// An earlier stage or another image that files were taken from, as both bakes made it.
pub(super) struct Earlier<'a> {
    pub(super) name: &'a str,
    pub(super) ours: Side<'a>,
    pub(super) theirs: Side<'a>,
}

/// Returns what each step made differently of an image, and before it of what the image was made from, where that reached it.
/// `earlier` come after what they are made from themselves. `scratch` is a folder for the files that are compared.
pub(super) fn compare(
    ours: Side<'_>,
    theirs: Side<'_>,
    earlier: &[Earlier<'_>],
    scratch: &Path,
) -> Result<Vec<Difference>, CompareError> {
    let own = changes(None, ours, theirs)?;
    if own.is_empty() {
        return Ok(vec![of_config()]);
    }
    let key = |change: &Change| (change.step.clone(), change.ids.clone());
    // What a stage inherits is told where it was made, and what the image inherits is the image's.
    let mut told: BTreeSet<_> = own.iter().map(key).collect();
    let mut all = Vec::new();
    for part in earlier {
        let found = changes(Some(part.name), part.ours, part.theirs)?;
        all.extend(found.into_iter().filter(|change| told.insert(key(change))));
    }
    all.extend(own);
    blame(all).iter().map(|change| describe(change, scratch)).collect()
}

/// Takes what was copied from the steps that copied it, and leaves out what did not reach the image.
fn blame(mut all: Vec<Change>) -> Vec<Change> {
    let mut reached = vec![false; all.len()];
    let mut is_copied = vec![false; all.len()];
    let mut made: BTreeMap<Trace, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
    for index in 0..all.len() {
        if copies_from_elsewhere(&all[index].step) {
            let files = std::mem::take(&mut all[index].files);
            let (had_files, part) = (!files.is_empty(), all[index].part.clone());
            for (path, pair) in files {
                let found = made.get(&trace(&path, &pair)).into_iter().flatten().rev();
                let origin =
                    found.map(|(origin, at)| (*origin, at)).find(|(origin, _)| all[*origin].part != part);
                let Some((origin, at)) = origin else {
                    all[index].files.insert(path, pair);
                    continue;
                };
                reached[origin] = true;
                if part.is_none() {
                    all[origin].copies.entry(at.clone()).or_default().push(path);
                }
            }
            is_copied[index] = had_files && all[index].files.is_empty();
        }
        if all[index].part.is_some() {
            for (path, pair) in &all[index].files {
                made.entry(trace(path, pair)).or_default().push((index, path.clone()));
            }
        }
    }
    // What no earlier step explains may come of anything in what was taken from.
    let is_open = |change: &Change| change.part.is_none() && change.step.contains("from=");
    let is_unexplained = all.iter().zip(&is_copied).any(|(change, is_copied)| !is_copied && is_open(change));
    let last =
        |part: &Option<String>| (0..all.len()).rfind(|index| reached[*index] && all[*index].part == *part);
    let matters = |(index, change): (usize, &Change)| {
        let reaches = change.part.is_none() || is_unexplained || last(&change.part) >= Some(index);
        reaches && !is_copied[index]
    };
    let keep: Vec<bool> = all.iter().enumerate().map(matters).collect();
    all.into_iter().zip(keep).filter_map(|(change, keep)| keep.then_some(change)).collect()
}

/// Whether a step is one of a Dockerfile that takes files as they are from a stage or an image.
fn copies_from_elsewhere(step: &str) -> bool {
    let word = step.split_whitespace().next().unwrap_or_default();
    (word.eq_ignore_ascii_case("COPY") || word.eq_ignore_ascii_case("ADD")) && step.contains("--from=")
}

/// What a difference is known by, wherever the file is copied.
type Trace = ([Option<Digest>; 2], Option<([Rest; 2], Vec<u8>)>);

/// Kind, mode and target of a link.
type Rest = Option<(u8, u32, Vec<u8>)>;

/// A copy may have another name, owner and mode; where the contents say nothing, the name and the rest must do.
fn trace(path: &[u8], pair: &Pair) -> Trace {
    let contents = [0, 1].map(|side: usize| pair[side].as_ref().and_then(|facts| facts.content));
    if contents[0] != contents[1] {
        return (contents, None);
    }
    let rest = |facts: &Facts| (facts.kind.as_byte(), facts.mode, facts.link.clone());
    (contents, Some(([0, 1].map(|side: usize| pair[side].as_ref().map(rest)), name_of(path).to_vec())))
}

fn name_of(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
