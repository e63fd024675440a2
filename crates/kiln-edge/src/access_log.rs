//! The access log: one JSON object a line, written by a thread of its own so that a slow disk slows no request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use kiln_model::calendar::civil_from_days;

use crate::backend::lock;
use crate::balancer::Choice;
use crate::ledger::Ledger;
use crate::limits::{LOG_BATCHES_MAX, LOG_FILE_BYTES_MAX, LOG_FILES_KEPT, LOG_PATH_BYTES_MAX};

/// One request.
pub(crate) struct Line<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) method: &'a Method,
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) place: Option<&'a Choice>,
    pub(crate) attempts: u32,
    pub(crate) error: Option<&'static str>,
}

impl Line<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>, now: SystemTime) {
        out.extend_from_slice(b"{\"time\":\"");
        write_time(out, now);
        // Writing to memory can't fail.
        let _ = write!(out, "\",\"client\":\"{}\",\"method\":\"{}\",\"host\":", self.client, self.method);
        match self.host {
            Some(host) => write_text(out, host),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"path\":");
        let path = self.path.as_bytes();
        write_text(out, &path[..path.len().min(LOG_PATH_BYTES_MAX)]);
        let duration_us = self.duration.as_micros();
        let Self { status, bytes, attempts, .. } = self;
        let _ = write!(out, ",\"status\":{status},\"bytes\":{bytes},\"duration_us\":{duration_us}");
        match self.place {
            Some(choice) => {
                let (instance, revision) = (choice.backend.instance, choice.revision.0);
                let _ = write!(out, ",\"instance\":\"{instance}\",\"revision\":{revision}");
            }
            None => out.extend_from_slice(b",\"instance\":null,\"revision\":null"),
        }
        let _ = write!(out, ",\"attempts\":{attempts}");
        if let Some(error) = self.error {
            let _ = write!(out, ",\"error\":\"{error}\"");
        }
        out.extend_from_slice(b"}\n");
    }
}

/// A JSON string. What is not printable ASCII is escaped as its byte's code point.
fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x20..=0x7e => out.push(*byte),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
    out.push(b'"');
}

/// RFC 3339 in UTC with milliseconds.
fn write_time(out: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
    let clock = seconds % 86_400;
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
}

/// Where workers leave their lines.
#[derive(Debug)]
pub(crate) struct LogSender {
    batches: Mutex<Option<SyncSender<Vec<u8>>>>,
    ledger: Arc<Ledger>,
}

impl LogSender {
    /// Hands lines to the writer; drops and counts them when it is too far behind.
    pub(crate) fn send(&self, lines: Vec<u8>) {
        let left = match &*lock(&self.batches) {
            Some(batches) => match batches.try_send(lines) {
                Ok(()) => return,
                Err(TrySendError::Full(lines) | TrySendError::Disconnected(lines)) => lines,
            },
            None => lines,
        };
        count_dropped(&self.ledger, &left);
    }

    /// Lets the writer end once it has written what was sent.
    pub(crate) fn close(&self) {
        *lock(&self.batches) = None;
    }
}

fn count_dropped(ledger: &Ledger, lines: &[u8]) {
    ledger.count_dropped_log_lines(memchr::memchr_iter(b'\n', lines).count() as u64);
}

/// Writes what is sent to it until the sender is closed.
pub(crate) struct LogWriter {
    batches: Receiver<Vec<u8>>,
    path: PathBuf,
    ledger: Arc<Ledger>,
}

/// Makes the two ends.
pub(crate) fn channel(path: PathBuf, ledger: &Arc<Ledger>) -> (LogSender, LogWriter) {
    let (sender, receiver) = sync_channel(LOG_BATCHES_MAX);
    let writer = LogWriter { batches: receiver, path, ledger: Arc::clone(ledger) };
    (LogSender { batches: Mutex::new(Some(sender)), ledger: Arc::clone(ledger) }, writer)
}

impl LogWriter {
    pub(crate) fn run(self) {
        let mut open = None;
        while let Ok(lines) = self.batches.recv() {
            // A disk that fails loses lines, never requests; the next batch tries again from the start.
            open = match write_batch(&self.path, open.take(), &lines, LOG_FILE_BYTES_MAX) {
                Ok(file) => Some(file),
                Err(_) => {
                    count_dropped(&self.ledger, &lines);
                    None
                }
            };
        }
    }
}

fn write_batch(
    path: &Path,
    open: Option<(File, u64)>,
    lines: &[u8],
    bytes_max: u64,
) -> io::Result<(File, u64)> {
    let (file, size) = match open {
        Some(open) => open,
        None => open_log(path)?,
    };
    let (mut file, size) = if size > 0 && size + lines.len() as u64 > bytes_max {
        drop(file);
        rotate(path)?;
        open_log(path)?
    } else {
        (file, size)
    };
    file.write_all(lines)?;
    Ok((file, size + lines.len() as u64))
}

fn open_log(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| path.with_extension(format!("log.{number}"));
    for number in (1..LOG_FILES_KEPT).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(millis: u64) -> String {
        let mut out = Vec::new();
        write_time(&mut out, UNIX_EPOCH + Duration::from_millis(millis));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_calendar_times() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_795_255_556_123), "2026-11-21T10:05:56.123Z");
    }

    #[test]
    fn a_line_is_json_whatever_the_client_sent() {
        let mut out = Vec::new();
        let line = Line {
            client: "192.0.2.1:99".parse().unwrap(),
            method: &Method::GET,
            host: Some(b"a\"\\\xff\n"),
            path: "/x?\"y\"",
            status: 200,
            bytes: 5,
            duration: Duration::from_micros(1500),
            place: None,
            attempts: 0,
            error: Some("no-route"),
        };
        line.write(&mut out, UNIX_EPOCH);
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read["path"], "/x?\"y\"");
        assert_eq!(read["host"], "a\"\\\u{ff}\n");
        assert_eq!(read["duration_us"], 1500);
        assert_eq!(read["error"], "no-route");
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
    }

    #[test]
    fn a_full_file_is_moved_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut open = None;
        for number in 0..7 {
            open = Some(write_batch(&path, open, format!("{number}\n").as_bytes(), 3).unwrap());
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("access.log"), "6\n");
        assert_eq!(read("access.log.1"), "5\n");
        assert_eq!(read("access.log.4"), "2\n");
        assert!(!folder.path().join("access.log.5").exists());
    }

    #[test]
    fn lines_that_the_writer_can_not_take_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(&folder.path().join("ledger")).unwrap();
        let ledger = Arc::new(ledger);
        let (sender, writer) = channel(folder.path().join("access.log"), &ledger);
        for _ in 0..LOG_BATCHES_MAX + 2 {
            sender.send(b"a\nb\n".to_vec());
        }
        assert_eq!(ledger.snapshot().log_lines_dropped, 4);
        sender.close();
        writer.run();
        let written = std::fs::read(folder.path().join("access.log")).unwrap();
        assert_eq!(written.len(), LOG_BATCHES_MAX * 4);
    }
}
