//! Blobs and their uploads over HTTP.

use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_RANGE, HeaderMap, IF_RANGE, RANGE};
use hyper::{Method, StatusCode};

use super::Shared;
use super::answer::{Answer, Code, Refusal, With, empty, with_body};
use super::body::Body;
use super::receive::append;
use super::route::{Query, content_digest};
use super::sessions::{Turn, blocking};
use crate::digest::{Algorithm, ContentDigest};
use crate::name::RepositoryName;
use crate::storage::UploadId;

/// `GET` or `HEAD` of a blob, or of a part of it.
pub(crate) async fn get(
    shared: &Shared,
    name: RepositoryName,
    digest: ContentDigest,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let (storage, wanted) = (Arc::clone(&shared.storage), digest.clone());
    let content = blocking(move || storage.open_blob(&name, &wanted)).await?.ok_or_else(unknown_blob)?;
    let size = content.size;
    let tag = format!("\"{digest}\"");
    let common = |answer: Answer| {
        answer
            .with("content-type", "application/octet-stream")
            .with("accept-ranges", "bytes")
            .with("docker-content-digest", digest.to_string())
            .with("etag", &tag)
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A part of another content is of no use to whoever names the content that he has a part of.
    let range = text(RANGE).filter(|_| text(IF_RANGE).is_none_or(|known| known == tag));
    match range.map_or(Range::Whole, |text| Range::parse(text, size)) {
        // Said even where it is nothing: hyper says nothing of an empty body to a HEAD.
        Range::Whole => Ok(common(with_body(StatusCode::OK, Body::part(content, 0, size)))
            .with("content-length", size.to_string())),
        Range::Part { first, last } => {
            let body = Body::part(content, first, last - first + 1);
            Ok(common(with_body(StatusCode::PARTIAL_CONTENT, body))
                .with("content-range", format!("bytes {first}-{last}/{size}")))
        }
        Range::Outside => {
            let message = format!("the blob has {size} bytes");
            Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid, message)
                .header("content-range", format!("bytes */{size}")))
        }
    }
}

/// `DELETE` of a blob.
pub(crate) async fn delete(
    shared: &Shared,
    name: RepositoryName,
    digest: ContentDigest,
) -> Result<Answer, Refusal> {
    let storage = Arc::clone(&shared.storage);
    let (of, wanted) = (name.clone(), digest.clone());
    if !blocking(move || storage.delete_blob(&of, &wanted)).await? {
        return Err(unknown_blob());
    }
    tracing::info!(repository = %name, %digest, "a blob was deleted");
    Ok(empty(StatusCode::ACCEPTED))
}

fn unknown_blob() -> Refusal {
    Refusal::missing(Code::BlobUnknown, "the repository has no such blob")
}

/// What part of a blob is wanted, by RFC 9110, section 14.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it: also where several parts are wanted, or something that is no range of bytes.
    Whole,
    Part {
        first: u64,
        last: u64,
    },
    Outside,
}

impl Range {
    pub(super) fn parse(text: &str, size: u64) -> Self {
        let Some(spec) = text.trim().strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
            return Self::Whole;
        };
        let Some((first, last)) = spec.trim().split_once('-') else { return Self::Whole };
        let number = |text: &str| -> Option<u64> {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // One that fits nowhere is beyond the end.
            is_number.then(|| text.parse().unwrap_or(u64::MAX))
        };
        match (number(first), number(last)) {
            (Some(first), _) if first >= size => Self::Outside,
            (Some(first), Some(last)) if last < first => Self::Outside,
            (Some(first), Some(last)) => Self::Part { first, last: last.min(size - 1) },
            (Some(first), None) if last.is_empty() => Self::Part { first, last: size - 1 },
            (None, Some(0)) if first.is_empty() => Self::Outside,
            (None, Some(_)) if first.is_empty() && size == 0 => Self::Outside,
            (None, Some(count)) if first.is_empty() => {
                Self::Part { first: size.saturating_sub(count), last: size - 1 }
            }
            _ => Self::Whole,
        }
    }
}

/// `POST` to the uploads of a repository: a mount, a whole blob, or the beginning of one.
pub(crate) async fn begin(
    shared: &Shared,
    name: RepositoryName,
    query: &Query,
    body: &mut Incoming,
) -> Result<Answer, Refusal> {
    let mut algorithm = Algorithm::Sha256;
    if let Some(text) = query.get("digest-algorithm") {
        algorithm = text.parse().map_err(|error| Refusal::bad(Code::DigestInvalid, error))?;
    }
    if let Some(mount) = query.get("mount") {
        let digest = content_digest(mount)?;
        algorithm = digest.algorithm();
        let from = query.get("from").filter(|from| !from.is_empty()).map(str::parse).transpose();
        let from: Option<RepositoryName> = from.map_err(|error| Refusal::bad(Code::NameInvalid, error))?;
        let storage = Arc::clone(&shared.storage);
        let (to, wanted) = (name.clone(), digest.clone());
        if blocking(move || storage.mount_blob(&to, &wanted, from.as_ref())).await? {
            return Ok(created(&name, &digest));
        }
    }
    let digest = query.get("digest").map(content_digest).transpose()?;
    if let Some(digest) = digest {
        return whole(shared, name, digest, body).await;
    }
    let mut turn = shared.sessions.begin(name, algorithm).await?;
    Ok(state(StatusCode::ACCEPTED, &mut turn))
}

/// Takes a blob in one request.
async fn whole(
    shared: &Shared,
    name: RepositoryName,
    digest: ContentDigest,
    body: &mut Incoming,
) -> Result<Answer, Refusal> {
    let mut turn = shared.sessions.begin(name.clone(), digest.algorithm()).await?;
    let id = turn.upload().id.clone();
    let outcome = match append(turn, body, None).await {
        Ok(turn) => finish(shared, turn, digest).await,
        Err(refusal) => Err(refusal),
    };
    // Nobody was told where it is, so nobody goes on with it; on a full disk it would keep the disk full.
    if outcome.is_err()
        && let Ok(turn) = shared.sessions.turn(&name, &id).await
    {
        shared.sessions.cancel(turn).await?;
    }
    outcome
}

/// What a request does with an upload.
pub(crate) async fn upload(
    shared: &Shared,
    name: RepositoryName,
    id: UploadId,
    request: (&Method, &HeaderMap, &Query),
    body: &mut Incoming,
) -> Result<Answer, Refusal> {
    let (method, headers, query) = request;
    // Looked at before the turn is taken: a request that makes no sense is answered at once.
    let digest = match *method {
        Method::PUT => {
            let text = query.get("digest");
            let text = text.ok_or_else(|| Refusal::bad(Code::DigestInvalid, "the digest is missing"))?;
            Some(content_digest(text)?)
        }
        _ => None,
    };
    let chunk = headers.get(CONTENT_RANGE).filter(|_| *method == Method::PUT || *method == Method::PATCH);
    let chunk = chunk.map(|value| Chunk::parse(value.to_str().unwrap_or_default())).transpose()?;
    let mut turn = shared.sessions.turn(&name, &id).await?;
    match *method {
        Method::DELETE => {
            shared.sessions.cancel(turn).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Method::PUT | Method::PATCH => {
            if let Some(chunk) = &chunk {
                chunk.check(&mut turn, body.size_hint().exact())?;
            }
            let mut turn = append(turn, body, chunk.map(|chunk| chunk.size())).await?;
            match digest {
                Some(digest) => finish(shared, turn, digest).await,
                None => Ok(state(StatusCode::ACCEPTED, &mut turn)),
            }
        }
        _ => Ok(state(StatusCode::NO_CONTENT, &mut turn)),
    }
}

/// Where a chunk belongs: `first-last`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    first: u64,
    last: u64,
}

impl Chunk {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| text.parse::<u64>().ok().filter(|_| digits(text));
        let pair = text.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
        match pair {
            Some((first, last)) if first <= last && last < u64::MAX => Ok(Self { first, last }),
            _ => Err(Refusal::bad(Code::BlobUploadInvalid, "Content-Range is not of the form `first-last`")),
        }
    }

    const fn size(self) -> u64 {
        self.last - self.first + 1
    }

    /// Refuses a chunk that does not follow, or that is not as long as it says.
    fn check(self, turn: &mut Turn, sent: Option<u64>) -> Result<(), Refusal> {
        let at = turn.upload().size();
        if self.first != at {
            let message = format!("the next chunk begins at {at}");
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message);
            let state = state(StatusCode::NO_CONTENT, turn);
            let text = |name: &str| state.headers()[name].to_str().unwrap_or_default().to_owned();
            return Err(refusal.header("location", text("location")).header("range", text("range")));
        }
        match sent {
            Some(sent) if sent != self.size() => Err(Refusal::bad(
                Code::SizeInvalid,
                format!("the range has {} bytes, the body {sent}", self.size()),
            )),
            _ => Ok(()),
        }
    }
}

async fn finish(shared: &Shared, mut turn: Turn, digest: ContentDigest) -> Result<Answer, Refusal> {
    let name = turn.upload().repository.clone();
    shared.sessions.finish(turn, digest.clone()).await?;
    Ok(created(&name, &digest))
}

fn created(name: &RepositoryName, digest: &ContentDigest) -> Answer {
    empty(StatusCode::CREATED)
        .with("location", format!("/v2/{name}/blobs/{digest}"))
        .with("docker-content-digest", digest.to_string())
}

/// How far an upload is.
///
/// The specification has no range for nothing; `0-0` is what every registry says, and no client that asks has sent one byte.
fn state(status: StatusCode, turn: &mut Turn) -> Answer {
    let upload = turn.upload();
    empty(status)
        .with("location", format!("/v2/{}/blobs/uploads/{}", upload.repository, upload.id))
        .with("range", format!("0-{}", upload.size().saturating_sub(1)))
        .with("docker-upload-uuid", upload.id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let part = |first, last| Range::Part { first, last };
        for (text, size, range) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=5-", 10, part(5, 9)),
            ("bytes=5-99", 10, part(5, 9)),
            ("bytes=5-99999999999999999999999", 10, part(5, 9)),
            ("bytes=-3", 10, part(7, 9)),
            ("bytes=-99", 10, part(0, 9)),
            ("bytes=10-", 10, Range::Outside),
            ("bytes=99999999999999999999999-", 10, Range::Outside),
            ("bytes=5-4", 10, Range::Outside),
            ("bytes=-0", 10, Range::Outside),
            ("bytes=0-0", 0, Range::Outside),
            ("bytes=-1", 0, Range::Outside),
            ("bytes=0-1,3-4", 10, Range::Whole),
            ("bytes=-", 10, Range::Whole),
            ("bytes=a-b", 10, Range::Whole),
            ("bytes=1-b", 10, Range::Whole),
            ("items=0-1", 10, Range::Whole),
        ] {
            assert_eq!(Range::parse(text, size), range, "{text} of {size}");
        }
    }

    #[test]
    fn chunks_follow_the_specification() {
        assert_eq!(Chunk::parse("0-9").unwrap().size(), 10);
        for text in ["", "-", "0-", "-9", "9-0", "bytes 0-9/10", "0-9/10", "+0-9", "0-18446744073709551615"] {
            assert!(Chunk::parse(text).is_err(), "{text}");
        }
    }
}
