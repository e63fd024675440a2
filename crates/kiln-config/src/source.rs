//! The text of a stack folder, and places in it.

use std::collections::BTreeMap;

/// A stack is written by people: a file beyond this is a mistake or an attack, and parsing it would take seconds.
pub const SOURCE_BYTES_MAX: usize = 8 << 20;

/// The `*.hcl` files of one folder. Several files are one stack, and their order means nothing.
#[derive(Debug, Clone, Default)]
pub struct SourceSet {
    files: Vec<SourceFile>,
}

/// One file: its text and where its lines begin.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) text: String,
    line_starts: Vec<usize>,
    pub(crate) flaw: Option<Flaw>,
}

/// Why a file can't be read as text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flaw {
    /// The bytes from here on are not UTF-8.
    NotUtf8(usize),
    /// It has this many bytes.
    TooLarge(usize),
}

/// Which file of a [`SourceSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u32);

impl FileId {
    /// Text that belongs to no file: a `-var`, or a template that was read while evaluating.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// A range of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) file: FileId,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// Nowhere: for values that no text wrote.
    pub(crate) const NONE: Self = Self { file: FileId::NONE, start: 0, end: 0 };

    pub(crate) fn new(file: FileId, start: usize, end: usize) -> Self {
        // Sources are bounded by SOURCE_BYTES_MAX, so offsets fit.
        Self { file, start: start as u32, end: end.max(start) as u32 }
    }
}

impl SourceSet {
    /// Returns an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file under the path that diagnostics show. A file under the same path is replaced.
    ///
    /// Bytes that are not UTF-8, or more than [`SOURCE_BYTES_MAX`], are reported by [`crate::load()`].
    pub fn insert(&mut self, path: impl Into<String>, text: impl AsRef<[u8]>) {
        let file = SourceFile::new(path.into(), text.as_ref());
        match self.files.binary_search_by(|f| f.path.cmp(&file.path)) {
            Ok(at) => self.files[at] = file,
            Err(at) => self.files.insert(at, file),
        }
    }

    /// Returns the text of a file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.by_path(path).map(|f| f.text.as_str())
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(crate) fn by_path(&self, path: &str) -> Option<&SourceFile> {
        self.files.binary_search_by(|f| f.path.as_str().cmp(path)).ok().map(|at| &self.files[at])
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (FileId, &SourceFile)> {
        self.files.iter().enumerate().map(|(i, f)| (FileId(i as u32), f))
    }

    pub(crate) fn file(&self, id: FileId) -> Option<&SourceFile> {
        self.files.get(id.0 as usize)
    }
}

impl<P: Into<String>, T: AsRef<[u8]>> FromIterator<(P, T)> for SourceSet {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(files: I) -> Self {
        let files: BTreeMap<String, T> = files.into_iter().map(|(p, t)| (p.into(), t)).collect();
        Self { files: files.into_iter().map(|(p, t)| SourceFile::new(p, t.as_ref())).collect() }
    }
}

impl SourceFile {
    fn new(path: String, bytes: &[u8]) -> Self {
        let (text, flaw) = if bytes.len() > SOURCE_BYTES_MAX {
            (String::new(), Some(Flaw::TooLarge(bytes.len())))
        } else {
            match std::str::from_utf8(bytes) {
                // A byte order mark is not part of the language; blanks keep every offset.
                Ok(text) if text.starts_with('\u{feff}') => (format!("   {}", &text[3..]), None),
                Ok(text) => (text.to_owned(), None),
                Err(error) => {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    (text, Some(Flaw::NotUtf8(error.valid_up_to())))
                }
            }
        };
        let newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        Self { path, text, line_starts, flaw }
    }

    /// Returns the line and column of a byte, both from 1; a column counts characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// Returns where a line (from 1) starts, and its text without the line ending.
    pub(crate) fn line(&self, line: usize) -> Option<(usize, &str)> {
        let start = *self.line_starts.get(line.checked_sub(1)?)?;
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        Some((start, self.text[start..end].trim_end_matches(['\n', '\r'])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_end_before_their_ending() {
        let set: SourceSet = [("a.hcl", "x = 1\r\nä = \"é\"\n")].into_iter().collect();
        let file = set.by_path("a.hcl").unwrap();
        assert_eq!(file.position(0), (1, 1));
        assert_eq!(file.position(7), (2, 1));
        assert_eq!(file.position(9), (2, 2));
        assert_eq!(file.line(1), Some((0, "x = 1")));
        assert_eq!(file.position(10_000), (3, 1));
    }

    #[test]
    fn a_file_under_the_same_path_is_replaced() {
        let mut set = SourceSet::new();
        set.insert("b.hcl", "1");
        set.insert("a.hcl", "2");
        set.insert("b.hcl", "3");
        assert_eq!(set.files().count(), 2);
        assert_eq!(set.text("b.hcl"), Some("3"));
    }
}
