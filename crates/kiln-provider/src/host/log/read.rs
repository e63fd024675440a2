//! Reading an instance's log back, whether it still grows or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::PathBuf;

use super::segment::{Entry, LINE_BYTES_MAX, cursor_at, numbers, place_of, segment_path};
use crate::port::{LogCursor, LogLine, LogNext, Stream};
use kiln_model::Timestamp;

/// Parts of a line are joined up to here; more can only come from a file that somebody else wrote.
const JOINED_BYTES_MAX: usize = 4 * LINE_BYTES_MAX;

/// Reads the segments of one instance in order.
#[derive(Debug)]
pub(crate) struct FileLog {
    folder: PathBuf,
    segment: u64,
    offset: u64,
    reader: Option<BufReader<File>>,
    /// The beginning of a line, by stream.
    parts: [Option<(Timestamp, Vec<u8>)>; 2],
}

impl FileLog {
    pub(crate) fn open(folder: PathBuf, cursor: LogCursor) -> Self {
        let (segment, offset) = place_of(cursor);
        Self { folder, segment, offset, reader: None, parts: [None, None] }
    }

    /// Goes on at the same place in a folder that was moved.
    pub(crate) fn move_to(&mut self, folder: PathBuf) {
        self.folder = folder;
        self.reader = None;
    }

    /// Returns the next line, or none if there is no more now. With `ended`, nothing will be added: a part is taken for a line.
    pub(crate) fn poll(&mut self, ended: bool) -> io::Result<Option<LogNext>> {
        loop {
            if self.reader.is_none() && !self.open_segment()? {
                return Ok(None);
            }
            match self.read_entry()? {
                Some(Some(line)) => return Ok(Some(LogNext::Line(line))),
                Some(None) => {}
                // The end of this segment: it is final if there is another one.
                None if self.newer()?.is_some() => self.reader = None,
                None => return Ok(if ended { self.last_part().map(LogNext::Line) } else { None }),
            }
        }
    }

    fn newer(&self) -> io::Result<Option<u64>> {
        Ok(numbers(&self.folder)?.into_iter().find(|number| *number > self.segment))
    }

    /// Opens the segment at the cursor; when it is read through or gone, the next.
    fn open_segment(&mut self) -> io::Result<bool> {
        let known = match numbers(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let path = segment_path(&self.folder, self.segment);
        let is_read =
            File::open(&path).and_then(|file| file.metadata()).is_ok_and(|data| data.len() <= self.offset);
        let next = known.iter().find(|number| **number > self.segment);
        if !known.contains(&self.segment) || (is_read && next.is_some()) {
            let Some(next) = next else { return Ok(false) };
            (self.segment, self.offset) = (*next, 0);
        }
        let mut file = match File::open(segment_path(&self.folder, self.segment)) {
            // Dropped for its age just now.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        self.reader = Some(BufReader::new(file));
        Ok(true)
    }

    /// Outer none: the end of the segment. Inner none: an entry that is no whole line.
    fn read_entry(&mut self) -> io::Result<Option<Option<LogLine>>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let mut bytes = Vec::new();
        let count = reader.read_until(b'\n', &mut bytes)? as u64;
        if !bytes.ends_with(b"\n") {
            // Half an entry is being written, or nothing is there: read it again from here.
            self.reader = None;
            return Ok(if self.newer()?.is_some() && count > 0 {
                self.offset += count;
                Some(None)
            } else {
                None
            });
        }
        self.offset += count;
        let Some(entry) = Entry::parse(&bytes[..bytes.len() - 1]) else { return Ok(Some(None)) };
        let part = &mut self.parts[entry.stream as usize];
        let (at, mut text) = part.take().unwrap_or((entry.at, Vec::new()));
        text.extend_from_slice(entry.text);
        if !entry.is_full && text.len() < JOINED_BYTES_MAX {
            *part = Some((at, text));
            return Ok(Some(None));
        }
        Ok(Some(Some(self.line(at, entry.stream, &text))))
    }

    fn last_part(&mut self) -> Option<LogLine> {
        let streams = [Stream::Out, Stream::Err];
        let (stream, (at, text)) =
            streams.into_iter().find_map(|stream| Some((stream, self.parts[stream as usize].take()?)))?;
        Some(self.line(at, stream, &text))
    }

    fn line(&self, at: Timestamp, stream: Stream, text: &[u8]) -> LogLine {
        let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text)).into_owned();
        LogLine { cursor: cursor_at(self.segment, self.offset), at, stream, text }
    }
}
