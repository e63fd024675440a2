//! Lists in pages: memory is bounded by the page, however much there is.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::value::RawValue;

use super::manifest::{MANIFESTS, REFERRERS, TAGS};
use super::{Storage, found};
use crate::digest::ContentDigest;
use crate::manifest::MANIFEST_BYTES_MAX;
use crate::name::RepositoryName;

/// A part of a list in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    /// The entries.
    pub(crate) items: Vec<T>,
    /// After which name the next part begins, if there is one.
    pub(crate) next: Option<String>,
}

/// Keeps the first names after a given one.
#[derive(Debug)]
struct Window<'a> {
    after: &'a str,
    count: usize,
    /// One more than wanted, to know whether there are more.
    names: BTreeSet<String>,
}

impl<'a> Window<'a> {
    fn new(after: Option<&'a str>, count: usize) -> Self {
        Self { after: after.unwrap_or_default(), count, names: BTreeSet::new() }
    }

    fn add(&mut self, name: String) {
        if name.as_str() > self.after {
            self.names.insert(name);
            if self.names.len() > self.count + 1 {
                self.names.pop_last();
            }
        }
    }

    fn page(mut self) -> Page<String> {
        let more = self.names.len() > self.count;
        if more {
            self.names.pop_last();
        }
        let next = self.names.last().filter(|_| more).cloned();
        Page { items: self.names.into_iter().collect(), next }
    }
}

impl Storage {
    /// Lists the tags of a repository; none where there is no such repository.
    pub(crate) fn tags(
        &self,
        name: &RepositoryName,
        after: Option<&str>,
        count: usize,
    ) -> io::Result<Option<Page<String>>> {
        let folder = self.repository(name);
        if !is_repository(&folder) {
            return Ok(None);
        }
        let mut window = Window::new(after, count);
        for tag in found(fs::read_dir(folder.join(TAGS)))?.into_iter().flatten() {
            if let Ok(tag) = tag?.file_name().into_string() {
                window.add(tag);
            }
        }
        Ok(Some(window.page()))
    }

    /// Lists the repositories that have a manifest.
    pub(crate) fn repositories(&self, after: Option<&str>, count: usize) -> io::Result<Page<String>> {
        let mut window = Window::new(after, count);
        walk(&self.root.join("repositories"), "", &mut window)?;
        Ok(window.page())
    }

    /// Lists what is about a manifest, as descriptors in JSON; of one kind, if asked so.
    pub(crate) fn referrers(
        &self,
        name: &RepositoryName,
        subject: &ContentDigest,
        kind: Option<&str>,
        after: Option<&str>,
        count: usize,
    ) -> io::Result<Page<Box<RawValue>>> {
        let folder = self.of_digest(name, REFERRERS, subject);
        let mut window = Window::new(after, count);
        for entry in found(fs::read_dir(&folder))?.into_iter().flatten() {
            if let Ok(entry) = entry?.file_name().into_string() {
                window.add(entry);
            }
        }
        let Page { items: names, mut next } = window.page();
        let mut items = Vec::new();
        let mut bytes = 0;
        for entry in names {
            let digest = entry.replacen('-', ":", 1).parse();
            let Ok(digest) = digest else { continue };
            if found(fs::metadata(self.of_digest(name, MANIFESTS, &digest)))?.is_none() {
                continue;
            }
            let Some(text) = found(fs::read_to_string(folder.join(&entry)))? else { continue };
            if kind.is_some_and(|kind| kind_of(&text).as_deref() != Some(kind)) {
                continue;
            }
            bytes += text.len();
            items.push(RawValue::from_string(text).map_err(io::Error::other)?);
            // A client takes no larger manifest, and this is one.
            if bytes > MANIFEST_BYTES_MAX / 2 {
                next = Some(entry);
                break;
            }
        }
        Ok(Page { items, next })
    }
}

fn kind_of(descriptor: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        artifact_type: Option<String>,
    }
    serde_json::from_str::<Kind>(descriptor).ok()?.artifact_type
}

/// Whether anything was ever pushed there.
fn is_repository(folder: &Path) -> bool {
    [MANIFESTS, super::blob::BLOBS].iter().any(|kind| folder.join(kind).is_dir())
}

/// Adds all repositories below a folder. As deep as a name can be: some 128 parts of one letter.
fn walk(folder: &Path, name: &str, window: &mut Window<'_>) -> io::Result<()> {
    for entry in found(fs::read_dir(folder))?.into_iter().flatten() {
        let Ok(part) = entry?.file_name().into_string() else { continue };
        if part == MANIFESTS {
            if has_files(&folder.join(MANIFESTS))? {
                window.add(name.to_owned());
            }
        } else if !part.starts_with('_') {
            let name = if name.is_empty() { part.clone() } else { format!("{name}/{part}") };
            walk(&folder.join(part), &name, window)?;
        }
    }
    Ok(())
}

fn has_files(manifests: &Path) -> io::Result<bool> {
    for algorithm in found(fs::read_dir(manifests))?.into_iter().flatten() {
        if found(fs::read_dir(algorithm?.path()))?.into_iter().flatten().next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_keeps_the_first_names_after_one() {
        let page = |after, count| {
            let mut window = Window::new(after, count);
            for name in ["c", "a", "d", "b"] {
                window.add(name.to_owned());
            }
            let Page { items, next } = window.page();
            (items.concat(), next)
        };
        assert_eq!(page(None, 9), ("abcd".into(), None));
        assert_eq!(page(None, 4), ("abcd".into(), None));
        assert_eq!(page(None, 2), ("ab".into(), Some("b".into())));
        assert_eq!(page(Some("b"), 2), ("cd".into(), None));
        assert_eq!(page(Some("bb"), 1), ("c".into(), Some("c".into())));
        assert_eq!(page(Some("z"), 1), (String::new(), None));
    }
}
