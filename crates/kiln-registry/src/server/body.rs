//! Bodies: of a few bytes, or read from a file piece by piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::limits::PIECE_BYTES;
use crate::storage::Content;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Bytes),
    File(FileBody),
}

/// A part of a file. The next piece is read while the one before it is being sent.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    unsent: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl Body {
    /// `size` bytes of a content from `from` on, which it has.
    pub(crate) fn part(content: Content, from: u64, size: u64) -> Self {
        let at = content.start + from;
        Self::File(FileBody { file: content.file.into(), at, end: at + size, unsent: size, reading: None })
    }
}

impl FileBody {
    fn read_ahead(&mut self) {
        if self.at == self.end {
            return;
        }
        let size = usize::try_from(self.end - self.at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let (file, at) = (Arc::clone(&self.file), self.at);
        self.at += size as u64;
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; size];
            file.read_exact_at(&mut piece, at)?;
            Ok(piece.into())
        }));
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.reading.is_none() {
            self.read_ahead();
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let piece = read.map_err(io::Error::other).flatten();
        match &piece {
            Ok(piece) => {
                self.unsent -= piece.len() as u64;
                self.read_ahead();
            }
            // The connection is cut, so that the client does not take the part for the whole.
            Err(error) => {
                tracing::error!(%error, "a stored file can't be read to its end");
                self.at = self.end;
            }
        }
        Poll::Ready(Some(piece))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::File(file) => file.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(file) => file.unsent == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.unsent,
        })
    }
}
