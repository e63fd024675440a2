//! What a client sends, on its way into an upload or, if it is small, into memory.

use std::io;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body as _, Bytes, Incoming};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::answer::{Code, Refusal};
use super::limits::{DRAIN_BYTES_MAX, DRAIN_WITHIN, PIECE_BYTES, STALL_MAX};
use super::sessions::{Turn, join};

/// Returns the next bytes of a body; none at its end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = timeout(STALL_MAX, body.frame()).await;
        let frame = frame.map_err(|_elapsed| {
            Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                Code::BlobUploadInvalid,
                format!("nothing came for {} seconds", STALL_MAX.as_secs()),
            )
        })?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                // Trailers say nothing about a blob.
                Err(_) => continue,
            },
            // Nobody reads the answer, most likely.
            Some(Err(error)) => {
                return Err(Refusal::bad(Code::SizeInvalid, format!("the request broke off: {error}")));
            }
        }
    }
}

/// An upload that is being written to: while one piece is written, the next one is received.
enum Writer {
    Idle(Turn, Vec<u8>),
    Busy(JoinHandle<(Turn, Vec<u8>, io::Result<()>)>),
}

impl Writer {
    /// Waits until what was given to it is written.
    async fn wait(self) -> Result<(Turn, Vec<u8>), Refusal> {
        match self {
            Self::Idle(turn, buffer) => Ok((turn, buffer)),
            Self::Busy(work) => {
                let (turn, buffer, outcome) = join(work).await?;
                outcome?;
                Ok((turn, buffer))
            }
        }
    }

    /// Has a full piece written, and returns an empty one.
    async fn write(self, piece: Vec<u8>) -> Result<(Self, Vec<u8>), Refusal> {
        let (mut turn, empty) = self.wait().await?;
        let work = tokio::task::spawn_blocking(move || {
            let outcome = turn.upload().append(&piece);
            let mut piece = piece;
            piece.clear();
            (turn, piece, outcome)
        });
        Ok((Self::Busy(work), empty))
    }
}

/// Appends a body to an upload. What arrived of one that breaks off stays, and can be gone on from.
///
/// With `expected` bytes, a body of another length is refused, and nothing of it stays.
pub(crate) async fn append(
    mut turn: Turn,
    body: &mut Incoming,
    expected: Option<u64>,
) -> Result<Turn, Refusal> {
    if body.is_end_stream() && expected.is_none() {
        return Ok(turn);
    }
    let mark = turn.upload().mark();
    let mut writer = Writer::Idle(turn, Vec::with_capacity(PIECE_BYTES));
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut count = 0;
    let failed = loop {
        let bytes = match next(body).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break None,
            Err(refusal) => break Some(refusal),
        };
        count += bytes.len() as u64;
        if expected.is_some_and(|expected| count > expected) {
            break None;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (fits, later) = rest.split_at(rest.len().min(PIECE_BYTES - piece.len()));
            piece.extend_from_slice(fits);
            rest = later;
            if piece.len() == PIECE_BYTES {
                (writer, piece) = writer.write(piece).await?;
            }
        }
    };
    let (writer, _) = writer.write(piece).await?;
    let (mut turn, _) = writer.wait().await?;
    if let Some(refusal) = failed {
        return Err(refusal);
    }
    match expected {
        Some(expected) if expected != count => {
            join(tokio::task::spawn_blocking(move || turn.upload().rewind(mark))).await??;
            Err(Refusal::bad(
                Code::SizeInvalid,
                format!("the range has {expected} bytes, and the body has another length"),
            ))
        }
        _ => Ok(turn),
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn whole(body: &mut Incoming, limit: usize) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::ManifestInvalid,
            format!("a manifest has at most {limit} bytes"),
        )
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(more) = next(body).await? {
        if bytes.len() + more.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Reads what is left of a body that is not wanted: a client that still writes does not read the answer, and a connection
/// that is closed on unread bytes takes the answer back.
pub(crate) async fn drain(body: &mut Incoming) {
    let read = async {
        let mut count = 0;
        while count < DRAIN_BYTES_MAX {
            match body.frame().await {
                Some(Ok(frame)) => count += frame.data_ref().map_or(0, |bytes| bytes.len() as u64),
                _ => break,
            }
        }
    };
    // What is not read by then is not waited for.
    let _ = timeout(DRAIN_WITHIN, read).await;
}
