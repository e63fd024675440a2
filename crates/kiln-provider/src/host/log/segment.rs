//! The segment files of one instance's log.
//!
//! An entry is one line: milliseconds since the epoch, `o` or `e` for the stream, `F` for a full line or `P` for a part that goes on in the
//! next entry of the same stream, and the text; the words are the ones of Kubernetes' container log format (CRI).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::Timestamp;

use crate::port::{LogCursor, Stream};

/// Small enough that dropping the oldest one loses little of what is kept.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 20;
/// With the size of one, what an instance that writes without end can take of the disk.
pub(crate) const SEGMENTS_MAX: u64 = 8;
/// A longer line is split: Docker's and containerd's limit.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 10;

/// Appends to an instance's log.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    folder: PathBuf,
    number: u64,
    file: File,
    length: u64,
    /// What could not be written because the disk is full or broken.
    lost_bytes: u64,
}

impl SegmentWriter {
    /// Goes on with the newest segment, or begins the first.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let number = numbers(folder)?.last().copied().unwrap_or(1);
        let mut file = open_segment(folder, number)?;
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { folder: folder.into(), number, file, length, lost_bytes: 0 })
    }

    /// Ends half an entry that a killed host or a power failure left, so that what follows is not taken for its end.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        if last != *b"\n" {
            self.file.write_all(b"\n")?;
            self.length += 1;
        }
        Ok(())
    }

    /// Appends what was read from a stream. A full disk loses it and is told about in the log once there is room.
    #[cfg(test)]
    pub(crate) fn append(&mut self, stream: Stream, bytes: &[u8]) {
        let text = self.encode(stream, bytes);
        self.write_batch(&text, bytes.len());
    }

    /// Returns the entries for what was read from a stream.
    pub(crate) fn encode(&self, stream: Stream, bytes: &[u8]) -> Vec<u8> {
        let now = now();
        let mut text = Vec::with_capacity(bytes.len() * 2);
        if self.lost_bytes > 0 {
            let note = format!("kiln: {} bytes of this log could not be written", self.lost_bytes);
            encode(&mut text, now, Stream::Err, b'F', note.as_bytes());
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, ends) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            let mut chunks = line.chunks(LINE_BYTES_MAX).peekable();
            if line.is_empty() {
                encode(&mut text, now, stream, b'F', b"");
            }
            while let Some(chunk) = chunks.next() {
                // A line beyond the limit is cut into lines; only the last piece of a read can be a part.
                let is_part = chunks.peek().is_none() && !ends && chunk.len() < LINE_BYTES_MAX;
                encode(&mut text, now, stream, if is_part { b'P' } else { b'F' }, chunk);
            }
        }
        text
    }

    /// Returns the segment that a batch of this size goes to, and its length before.
    pub(crate) fn place_for(&self, bytes: usize) -> (u64, u64) {
        if self.is_full_for(bytes) { (self.number + 1, 0) } else { (self.number, self.length) }
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        self.length > 0 && self.length + bytes as u64 > SEGMENT_BYTES_MAX
    }

    /// Writes entries that stand for `read` bytes of a stream.
    pub(crate) fn write_batch(&mut self, text: &[u8], read: usize) {
        match self.write(text) {
            Ok(()) => self.lost_bytes = 0,
            Err(_) => self.lost_bytes += read as u64,
        }
    }

    /// Takes back what was written after `length` to a segment, if it is the newest: half a batch of a killed host.
    pub(crate) fn take_back(&mut self, segment: u64, length: u64) -> io::Result<()> {
        if segment == self.number && length < self.length {
            self.file.set_len(length)?;
            self.length = length;
        }
        Ok(())
    }

    /// Returns the newest segment and its length.
    pub(crate) const fn end(&self) -> (u64, u64) {
        (self.number, self.length)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.is_full_for(text.len()) {
            let next = open_segment(&self.folder, self.number + 1)?;
            (self.number, self.file, self.length) = (self.number + 1, next, 0);
            if let Some(oldest) = self.number.checked_sub(SEGMENTS_MAX) {
                // It may be gone, or never have been.
                let _ = fs::remove_file(segment_path(&self.folder, oldest));
            }
        }
        let result = self.file.write_all(text);
        if result.is_err() {
            // Not half an entry: the next one must begin on a line of its own.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::End(0))?;
        } else {
            self.length += text.len() as u64;
        }
        result
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

fn encode(text: &mut Vec<u8>, at: Timestamp, stream: Stream, flag: u8, line: &[u8]) {
    let letter = match stream {
        Stream::Out => b'o',
        Stream::Err => b'e',
    };
    text.extend_from_slice(at.0.to_string().as_bytes());
    text.extend_from_slice(&[b' ', letter, b' ', flag, b' ']);
    text.extend_from_slice(line);
    text.push(b'\n');
}

/// One entry of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) at: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) is_full: bool,
    pub(crate) text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads an entry without its newline; none where a killed host left half of one.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let at = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let stream = match words.next()? {
            b"o" => Stream::Out,
            b"e" => Stream::Err,
            _ => return None,
        };
        let is_full = match words.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { at: Timestamp(at), stream, is_full, text: words.next()? })
    }
}

/// Returns a place in a segment as a cursor.
pub(crate) const fn cursor_at(segment: u64, offset: u64) -> LogCursor {
    LogCursor(segment << 32 | offset)
}

/// Returns the segment and the place in it.
pub(crate) const fn place_of(cursor: LogCursor) -> (u64, u64) {
    (cursor.0 >> 32, cursor.0 & 0xffff_ffff)
}

/// Returns the numbers of the segments, the oldest first.
pub(crate) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(crate) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}"))
}

fn open_segment(folder: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(segment_path(folder, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::log::FileLog;
    use crate::port::{LogLine, LogNext};

    fn lines(folder: &Path, cursor: LogCursor) -> Vec<LogLine> {
        let mut log = FileLog::open(folder.into(), cursor);
        let mut lines = Vec::new();
        while let Some(LogNext::Line(line)) = log.poll(true).unwrap() {
            lines.push(line);
        }
        lines
    }

    fn texts(folder: &Path) -> Vec<(Stream, String)> {
        lines(folder, LogCursor(0)).into_iter().map(|line| (line.stream, line.text)).collect()
    }

    #[test]
    fn a_line_that_came_in_parts_is_read_as_one_also_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::open(folder.path()).unwrap();
        writer.append(Stream::Out, b"one\ntw");
        writer.append(Stream::Err, b"other\n");
        drop(writer);
        SegmentWriter::open(folder.path()).unwrap().append(Stream::Out, b"o\n\n");
        let out = |text: &str| (Stream::Out, text.to_owned());
        assert_eq!(texts(folder.path()), [out("one"), (Stream::Err, "other".into()), out("two"), out("")]);
    }

    #[test]
    fn half_an_entry_of_a_killed_host_spoils_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        SegmentWriter::open(folder.path()).unwrap().append(Stream::Out, b"whole\n");
        let mut file = open_segment(folder.path(), 1).unwrap();
        file.write_all(b"17000").unwrap();
        let mut next = SegmentWriter::open(folder.path()).unwrap();
        next.mend().unwrap();
        next.append(Stream::Out, b"after\n");
        assert_eq!(texts(folder.path()), [(Stream::Out, "whole".into()), (Stream::Out, "after".into())]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_an_instance_that_writes_without_end_takes_a_bounded_space() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::open(folder.path()).unwrap();
        let chunk = vec![b'x'; 64 << 10];
        for _ in 0..200 {
            writer.append(Stream::Out, &chunk);
        }
        let numbers = numbers(folder.path()).unwrap();
        assert!(numbers.len() as u64 <= SEGMENTS_MAX, "{numbers:?}");
        assert!(numbers[0] > 1);
        assert!(texts(folder.path()).iter().all(|(_, text)| text.len() == LINE_BYTES_MAX));
    }

    #[test]
    fn a_cursor_goes_on_after_the_line_that_it_came_with() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::open(folder.path()).unwrap();
        writer.append(Stream::Out, b"a\nb\nc\n");
        let all = lines(folder.path(), LogCursor(0));
        let rest = lines(folder.path(), all[0].cursor);
        assert_eq!(rest.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(rest, all[1..]);
    }
}
