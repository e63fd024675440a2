//! Manifests over HTTP.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde_json::json;

use super::Shared;
use super::answer::{Answer, Code, Refusal, With, empty, with_body};
use super::body::Body;
use super::receive::whole;
use super::sessions::{blocking, join};
use crate::digest::{Algorithm, ContentDigest};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::name::{Reference, RepositoryName};
use crate::storage::PutManifestError;

/// `GET` or `HEAD` of a manifest.
pub(crate) async fn get(
    shared: &Shared,
    name: RepositoryName,
    reference: Result<Reference, String>,
) -> Result<Answer, Refusal> {
    let reference = reference.map_err(|_| unknown_manifest())?;
    let storage = Arc::clone(&shared.storage);
    let stored = blocking(move || storage.open_manifest(&name, &reference)).await?;
    let stored = stored.ok_or_else(unknown_manifest)?;
    let size = stored.content.size;
    Ok(with_body(StatusCode::OK, Body::part(stored.content, 0, size))
        .with("content-type", &stored.media_type)
        .with("docker-content-digest", stored.digest.to_string())
        .with("etag", format!("\"{}\"", stored.digest)))
}

/// `PUT` of a manifest.
pub(crate) async fn put(
    shared: &Shared,
    name: RepositoryName,
    reference: Result<Reference, String>,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Answer, Refusal> {
    let reference = reference.map_err(|reason| {
        let code = if reason.contains("sha256") { Code::DigestInvalid } else { Code::ManifestInvalid };
        Refusal::bad(code, reason)
    })?;
    let invalid = |error| Refusal::bad(Code::ManifestInvalid, error);
    let sent = headers.get(CONTENT_TYPE).map(|value| value.to_str()).transpose();
    let sent = sent.map_err(|_| Refusal::bad(Code::ManifestInvalid, "Content-Type is not text"))?;
    let _held = shared.manifests.acquire().await.expect("the semaphore is never closed");
    let bytes = whole(body, MANIFEST_BYTES_MAX).await?;
    let manifest = Manifest::parse(sent, &bytes).map_err(invalid)?;
    let (digest, tag) = match reference {
        Reference::Tag(tag) => (ContentDigest::of(Algorithm::Sha256, &bytes), Some(tag)),
        Reference::Digest(digest) => {
            let found = ContentDigest::of(digest.algorithm(), &bytes);
            if found != digest {
                let message = format!("the manifest has the digest {found}, not {digest}");
                return Err(Refusal::bad(Code::DigestInvalid, message));
            }
            (digest, None)
        }
    };
    let subject = manifest.subject.clone();
    let storage = Arc::clone(&shared.storage);
    let (to, under, pointer) = (name.clone(), digest.clone(), tag.clone());
    join(tokio::task::spawn_blocking(move || {
        storage.put_manifest(&to, &under, pointer.as_ref(), &manifest, &bytes)
    }))
    .await?
    .map_err(not_kept)?;
    let tag = tag.as_ref().map_or("", |tag| tag.as_str());
    tracing::info!(repository = %name, tag, %digest, "a manifest was pushed");
    let answer = empty(StatusCode::CREATED)
        .with("location", format!("/v2/{name}/manifests/{digest}"))
        .with("docker-content-digest", digest.to_string());
    Ok(match subject {
        Some(subject) => answer.with("oci-subject", subject.to_string()),
        None => answer,
    })
}

fn not_kept(error: PutManifestError) -> Refusal {
    match error {
        PutManifestError::Unknown { ref digest } => {
            let detail = json!({ "digest": digest.to_string() });
            Refusal::bad(Code::ManifestBlobUnknown, error).detail(detail)
        }
        PutManifestError::Size { ref digest, .. } => {
            let detail = json!({ "digest": digest.to_string() });
            Refusal::bad(Code::ManifestInvalid, error).detail(detail)
        }
        PutManifestError::Io(error) => error.into(),
    }
}

/// `DELETE` of a manifest or a tag.
pub(crate) async fn delete(
    shared: &Shared,
    name: RepositoryName,
    reference: Result<Reference, String>,
) -> Result<Answer, Refusal> {
    let reference = reference.map_err(|_| unknown_manifest())?;
    let storage = Arc::clone(&shared.storage);
    let (of, what) = (name.clone(), reference.clone());
    let was_there = blocking(move || match &what {
        Reference::Tag(tag) => storage.delete_tag(&of, tag),
        Reference::Digest(digest) => storage.delete_manifest(&of, digest),
    })
    .await?;
    if !was_there {
        return Err(unknown_manifest());
    }
    tracing::info!(repository = %name, %reference, "a manifest or tag was deleted");
    Ok(empty(StatusCode::ACCEPTED))
}

fn unknown_manifest() -> Refusal {
    Refusal::missing(Code::ManifestUnknown, "the repository has no such manifest")
}
