//! Two images of one recipe, layer by layer: what differs, and the step to blame.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use serde_json::Value;
use tar::EntryType;

use crate::hashing::sha256_of;

/// So many files show what a step does; a list of thousands hides it.
const FILES_MAX: usize = 20;

/// So many places of a file in the image are named.
const COPIES_MAX: usize = 3;

/// So many bytes of both sides are shown from where they differ.
const SHOWN_BYTES: usize = 16;

/// What one step made differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The earlier stage or the other image whose step it is; none for the image's own steps.
    pub part: Option<String>,
    /// The step, as the history has it; `config` where no layer differs.
    pub step: String,
    /// The files, not more than a few.
    pub files: Vec<FileDifference>,
    /// How many there are in all.
    pub count: usize,
}

/// How one file differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// Its absolute path.
    pub path: String,
    /// What differs.
    pub what: String,
    /// Where a later step copied it to in the image; not more than a few.
    pub copies: Vec<String>,
}

/// Two images can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A part of one can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of one makes no sense.
    #[error("{} is no part of an image", path.display())]
    Malformed {
        /// What.
        path: PathBuf,
    },
}

/// An image by its manifest, and where its blobs are.
pub(super) type Side<'a> = (&'a Digest, &'a dyn Fn(&Digest) -> PathBuf);

/// What one step made differently, before it is put into words.
pub(super) struct Change {
    /// See [`Difference::part`].
    pub(super) part: Option<String>,
    pub(super) step: String,
    /// What the two layers are before compression.
    pub(super) ids: [Option<String>; 2],
    layers: [Option<PathBuf>; 2],
    pub(super) files: BTreeMap<Vec<u8>, Pair>,
    /// Where in the image files of it are, by their paths.
    pub(super) copies: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

/// One file of both sides.
pub(super) type Pair = [Option<Facts>; 2];

/// Returns what each step of an image, or of a part of one, made differently, the first step first.
pub(super) fn changes(
    part: Option<&str>,
    ours: Side<'_>,
    theirs: Side<'_>,
) -> Result<Vec<Change>, CompareError> {
    let (one, other) = (steps(ours)?, steps(theirs)?);
    let mut found = Vec::new();
    for ((step, first), (_, second)) in one.into_iter().zip(other) {
        let ids = [&first, &second].map(|layer| layer.as_ref().map(|layer| layer.0.clone()));
        if ids[0] == ids[1] {
            continue;
        }
        let layers = [first, second].map(|layer| layer.map(|layer| layer.1));
        let (mut ours, mut theirs) = (facts(layers[0].as_deref())?, facts(layers[1].as_deref())?);
        let paths: BTreeSet<Vec<u8>> = ours.keys().chain(theirs.keys()).cloned().collect();
        let pairs = paths.into_iter().map(|path| {
            let pair = [ours.remove(&path), theirs.remove(&path)];
            (path, pair)
        });
        let files = pairs.filter(|(_, [ours, theirs])| ours != theirs).collect();
        found.push(Change { part: part.map(Into::into), step, ids, layers, files, copies: BTreeMap::new() });
    }
    Ok(found)
}

/// Puts a change into words. `scratch` is a folder for the files that are compared.
pub(super) fn describe(change: &Change, scratch: &Path) -> Result<Difference, CompareError> {
    let mut files = Vec::new();
    for (path, pair) in change.files.iter().take(FILES_MAX) {
        let what = match pair {
            [Some(ours), Some(theirs)] => {
                let mut what = fields(ours, theirs);
                if let (true, [Some(one), Some(other)]) = (ours.content != theirs.content, &change.layers) {
                    what.insert(0, content((one, other), path, scratch)?);
                }
                what.join("; ")
            }
            [Some(_), None] => "only the first bake made it".into(),
            _ => "only the second bake made it".into(),
        };
        let copies = change.copies.get(path).into_iter().flatten();
        let copies = copies.take(COPIES_MAX).map(|path| shown(path)).collect();
        files.push(FileDifference { path: shown(path), what, copies });
    }
    let Change { part, step, .. } = change;
    Ok(Difference { part: part.clone(), step: step.clone(), files, count: change.files.len() })
}

/// What is said where no file differs and the images do.
pub(super) fn of_config() -> Difference {
    let what = "the image's config differs, and its files do not".to_owned();
    let files = vec![FileDifference { path: "/".into(), what, copies: Vec::new() }];
    Difference { part: None, step: "config".into(), files, count: 1 }
}

/// One step's layer: what it is before compression, and the file that holds it.
type Layer = (String, PathBuf);

/// Returns the steps of an image, with the layers of those that changed something.
fn steps((manifest, at): Side<'_>) -> Result<Vec<(String, Option<Layer>)>, CompareError> {
    let read = |digest: &Digest| -> Result<(Value, PathBuf), CompareError> {
        let path = at(digest);
        let bytes = fs::read(&path).map_err(|source| CompareError::Read { path: path.clone(), source })?;
        let value =
            serde_json::from_slice(&bytes).map_err(|_| CompareError::Malformed { path: path.clone() })?;
        Ok((value, path))
    };
    let (manifest, path) = read(manifest)?;
    let digest = |value: &Value| value["digest"].as_str()?.parse::<Digest>().ok();
    let (config, config_path) =
        read(&digest(&manifest["config"]).ok_or(CompareError::Malformed { path: path.clone() })?)?;
    let layers = manifest["layers"].as_array().into_iter().flatten().map(digest);
    let ids = config["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut layers = ids.map(str::to_owned).zip(layers.map(|layer| layer.map(|layer| at(&layer))));
    let mut steps = Vec::new();
    for line in config["history"].as_array().into_iter().flatten() {
        let step = line["created_by"].as_str().unwrap_or_default().to_owned();
        let layer = match line["empty_layer"].as_bool() {
            Some(true) => None,
            _ => match layers.next() {
                Some((id, Some(path))) => Some((id, path)),
                _ => return Err(CompareError::Malformed { path: config_path }),
            },
        };
        steps.push((step, layer));
    }
    Ok(steps)
}

/// What a layer says of one file, but for its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    owner: (u64, u64),
    mtime: u64,
    pub(super) link: Vec<u8>,
    size: u64,
    pub(super) content: Option<Digest>,
    /// Attributes, and what no other field has room for.
    more: BTreeMap<String, Vec<u8>>,
}

type Files = BTreeMap<Vec<u8>, Facts>;

/// A whiteout stands for what a step removed.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let text = text.trim_end_matches('/');
    let (folder, name) = text.rsplit_once('/').map_or(("", text), |(folder, name)| (folder, name));
    let slash = if folder.is_empty() { "" } else { "/" };
    match name.strip_prefix(".wh.") {
        Some(name) => format!("/{folder}{slash}{name} (removed)").escape_debug().to_string(),
        None => format!("/{text}").escape_debug().to_string(),
    }
}

fn fields(ours: &Facts, theirs: &Facts) -> Vec<String> {
    let mut what = Vec::new();
    let mut say = |differs: bool, name: &str, one: String, other: String| {
        if differs {
            what.push(format!("{name} {one} | {other}"));
        }
    };
    say(ours.kind != theirs.kind, "kind", format!("{:?}", ours.kind), format!("{:?}", theirs.kind));
    say(ours.size != theirs.size, "size", ours.size.to_string(), theirs.size.to_string());
    say(ours.mode != theirs.mode, "mode", format!("{:o}", ours.mode), format!("{:o}", theirs.mode));
    let owner = |(user, group): (u64, u64)| format!("{user}:{group}");
    say(ours.owner != theirs.owner, "owner", owner(ours.owner), owner(theirs.owner));
    let time = |secs: u64| crate::calendar::iso(secs);
    say(ours.mtime != theirs.mtime, "time", time(ours.mtime), time(theirs.mtime));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    say(ours.link != theirs.link, "link to", text(&ours.link), text(&theirs.link));
    if ours.more != theirs.more {
        let names: Vec<&str> = ours.more.keys().chain(theirs.more.keys()).map(String::as_str).collect();
        what.push(format!("attributes, of {}", names.join(", ")));
    }
    what
}

/// Says from where on two contents differ.
fn content((one, other): (&Path, &Path), path: &[u8], scratch: &Path) -> Result<String, CompareError> {
    let copies = [scratch.join("first"), scratch.join("second")];
    for (layer, copy) in [one, other].into_iter().zip(&copies) {
        let failed = |source| CompareError::Read { path: layer.into(), source };
        let mut archive = open(layer).map_err(failed)?;
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            if *entry.path_bytes() == *path {
                let copied = File::create(copy).and_then(|mut file| io::copy(&mut entry, &mut file));
                copied.map_err(|source| CompareError::Read { path: copy.clone(), source })?;
            }
        }
    }
    let open = |path: &PathBuf| File::open(path).map(BufReader::new);
    let compared = open(&copies[0])
        .and_then(|one| Ok((one, open(&copies[1])?)))
        .and_then(|(one, other)| first_difference(one, other));
    let (at, one, other) = compared.map_err(|source| CompareError::Read { path: scratch.into(), source })?;
    Ok(format!("content from byte {at}: {} | {}", excerpt(&one), excerpt(&other)))
}

/// Returns the first offset at which two readers differ, and what each has from there on.
fn first_difference(mut one: impl Read, mut other: impl Read) -> io::Result<(u64, Vec<u8>, Vec<u8>)> {
    let mut at = 0;
    loop {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        one.by_ref().take(64 << 10).read_to_end(&mut ours)?;
        other.by_ref().take(64 << 10).read_to_end(&mut theirs)?;
        let same = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count();
        if same < ours.len().max(theirs.len()) || ours.is_empty() {
            one.take(SHOWN_BYTES as u64).read_to_end(&mut ours)?;
            other.take(SHOWN_BYTES as u64).read_to_end(&mut theirs)?;
            let rest = |bytes: &[u8]| bytes[same..].iter().take(SHOWN_BYTES).copied().collect();
            return Ok((at + same as u64, rest(&ours), rest(&theirs)));
        }
        at += same as u64;
    }
}

/// Text as text, and everything else as numbers.
fn excerpt(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        _ if bytes.is_empty() => "its end".into(),
        Ok(text) if !text.contains(|c: char| c.is_control() && c != '\n') => format!("{text:?}"),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn open(layer: &Path) -> io::Result<tar::Archive<zstd::Decoder<'static, BufReader<File>>>> {
    Ok(tar::Archive::new(zstd::Decoder::new(File::open(layer)?)?))
}

fn facts(layer: Option<&Path>) -> Result<Files, CompareError> {
    let Some(layer) = layer else { return Ok(Files::new()) };
    let failed = |source| CompareError::Read { path: layer.into(), source };
    let mut archive = open(layer).map_err(failed)?;
    let mut files = Files::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let mut more = BTreeMap::new();
        for record in entry.pax_extensions().map_err(failed)?.into_iter().flatten() {
            let record = record.map_err(failed)?;
            let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
            // These are in fields of the entry already.
            if !matches!(key.as_str(), "path" | "linkpath" | "size") {
                more.insert(key, record.value_bytes().to_vec());
            }
        }
        let header = entry.header();
        let number = |value: io::Result<u64>| value.unwrap_or_default();
        let facts = Facts {
            kind: header.entry_type(),
            mode: header.mode().unwrap_or_default(),
            owner: (number(header.uid()), number(header.gid())),
            mtime: number(header.mtime()),
            link: entry.link_name_bytes().map(|link| link.to_vec()).unwrap_or_default(),
            size: entry.size(),
            content: None,
            more,
        };
        let path = entry.path_bytes().to_vec();
        let content = match facts.kind {
            EntryType::Regular => Some(sha256_of(&mut entry).map_err(failed)?),
            _ => None,
        };
        files.insert(path, Facts { content, ..facts });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_is_found_also_beyond_a_buffer_and_at_an_end() {
        let long = vec![7; 100_000];
        let changed = [&long[..99_990], &[8; 10]].concat();
        assert_eq!(first_difference(&long[..], &changed[..]).unwrap(), (99_990, vec![7; 10], vec![8; 10]));
        assert_eq!(first_difference(&b"ab"[..], &b"abc"[..]).unwrap(), (2, vec![], b"c".to_vec()));
        assert_eq!(first_difference(&long[..65_536], &long[..65_537]).unwrap(), (65_536, vec![], vec![7]));
    }

    #[test]
    fn an_excerpt_is_text_where_it_can_be() {
        assert_eq!(excerpt(b"12:00\n"), "\"12:00\\n\"");
        assert_eq!(excerpt(&[0, 255]), "00ff");
        assert_eq!(excerpt(b""), "its end");
    }

    #[test]
    fn what_was_removed_is_shown_under_its_name() {
        assert_eq!(shown(b"etc/.wh.motd"), "/etc/motd (removed)");
        assert_eq!(shown(b".wh.motd"), "/motd (removed)");
        assert_eq!(shown(b"var/log/"), "/var/log");
    }
}
