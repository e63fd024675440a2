//! What a request's path and query mean.

use super::answer::{Code, Refusal};
use crate::digest::ContentDigest;
use crate::name::{Reference, RepositoryName};
use crate::storage::UploadId;

/// An endpoint of the specification.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Base,
    Catalog,
    Blob { name: RepositoryName, digest: ContentDigest },
    Uploads { name: RepositoryName },
    Upload { name: RepositoryName, id: UploadId },
    Manifest { name: RepositoryName, reference: Result<Reference, String> },
    Tags { name: RepositoryName },
    Referrers { name: RepositoryName, digest: ContentDigest },
}

impl Endpoint {
    /// Finds the endpoint of a path.
    ///
    /// A repository's name may hold the specification's own words, so it is read from the end.
    pub(crate) fn find(path: &str) -> Result<Self, Refusal> {
        let nothing = || Refusal::missing(Code::Unsupported, "there is no such endpoint");
        let path = decode(path, false).ok_or_else(nothing)?;
        let Some(rest) = path.strip_prefix("/v2") else { return Err(nothing()) };
        if rest.is_empty() || rest == "/" {
            return Ok(Self::Base);
        }
        if rest == "/_catalog" {
            return Ok(Self::Catalog);
        }
        let parts: Vec<&str> = rest.strip_prefix('/').ok_or_else(nothing)?.split('/').collect();
        match parts.as_slice() {
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] if !name.is_empty() => {
                Ok(Self::Uploads { name: repository(name)? })
            }
            [name @ .., "blobs", "uploads", id] if !name.is_empty() => {
                let name = repository(name)?;
                let id = id.parse().map_err(|()| unknown_upload())?;
                Ok(Self::Upload { name, id })
            }
            [name @ .., "blobs", digest] if !name.is_empty() => {
                Ok(Self::Blob { name: repository(name)?, digest: content_digest(digest)? })
            }
            [name @ .., "manifests", reference] if !name.is_empty() => {
                Ok(Self::Manifest { name: repository(name)?, reference: manifest_reference(reference) })
            }
            [name @ .., "tags", "list"] if !name.is_empty() => Ok(Self::Tags { name: repository(name)? }),
            [name @ .., "referrers", digest] if !name.is_empty() => {
                Ok(Self::Referrers { name: repository(name)?, digest: content_digest(digest)? })
            }
            _ => Err(nothing()),
        }
    }

    /// The methods that it has.
    pub(crate) const fn methods(&self) -> &'static str {
        match self {
            Self::Base | Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => "GET, HEAD",
            Self::Blob { .. } => "GET, HEAD, DELETE",
            Self::Uploads { .. } => "POST",
            Self::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE",
        }
    }
}

/// No such upload: never begun, finished, cancelled, or swept.
pub(crate) fn unknown_upload() -> Refusal {
    Refusal::missing(Code::BlobUploadUnknown, "there is no such upload")
}

fn repository(parts: &[&str]) -> Result<RepositoryName, Refusal> {
    parts.join("/").parse().map_err(|error| Refusal::bad(Code::NameInvalid, error))
}

pub(crate) fn content_digest(text: &str) -> Result<ContentDigest, Refusal> {
    text.parse().map_err(|error| Refusal::bad(Code::DigestInvalid, error))
}

/// What is neither is a manifest that is not there to whoever reads, and a mistake of whoever writes.
fn manifest_reference(text: &str) -> Result<Reference, String> {
    if text.contains(':') {
        return text.parse().map(Reference::Digest).map_err(|error| format!("{error}"));
    }
    text.parse().map(Reference::Tag).map_err(|error| format!("{error}"))
}

/// The parameters of a query.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query. What is badly encoded is as if it were not there.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name, true)?, decode(value, true)?))
        });
        Self(decoded.collect())
    }

    /// Returns the first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns how many entries are wanted, `limit` at most.
    pub(crate) fn count(&self, limit: usize) -> Result<usize, Refusal> {
        match self.get("n") {
            None => Ok(limit),
            // More than there are of anything is as good as all.
            Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(text.parse().unwrap_or(limit).min(limit))
            }
            Some(_) => Err(Refusal::bad(Code::Unsupported, "`n` is not a number")),
        }
    }
}

/// Resolves `%2F` and, in a query, `+`.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push((digit()? << 4 | digit()?) as u8);
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_the_words_of_the_specification() {
        let name: RepositoryName = "blobs/uploads/manifests".parse().unwrap();
        let found = Endpoint::find("/v2/blobs/uploads/manifests/tags/list").unwrap();
        assert_eq!(found, Endpoint::Tags { name: name.clone() });
        let found = Endpoint::find("/v2/blobs/uploads/manifests/blobs/uploads/").unwrap();
        assert_eq!(found, Endpoint::Uploads { name });
        assert_eq!(Endpoint::find("/v2/").unwrap(), Endpoint::Base);
        assert_eq!(Endpoint::find("/v2").unwrap(), Endpoint::Base);
    }

    #[test]
    fn no_path_leads_out_of_the_storage() {
        let hex = "a".repeat(64);
        for path in [
            "/v2/../../etc/manifests/passwd",
            "/v2/%2e%2e/%2e%2e/manifests/latest",
            "/v2/a/..%2f..%2fb/blobs/uploads/",
            "/v2/a/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd",
            "/v2/a/blobs/uploads/..%2f..%2fregistry.lock",
            "/v2/a/blobs/uploads/..",
            &format!("/v2/a%00b/blobs/sha256:{hex}"),
            &format!("/v2//a/blobs/sha256:{hex}"),
            &format!("/v2/a/_blobs/blobs/sha256:{hex}"),
            "/v2/blobs/uploads/",
            "/v2/manifests/latest",
            "/v1/_ping",
            "/",
            "//v2/",
            "/v2/a/%zz/tags/list",
        ] {
            assert!(Endpoint::find(path).is_err(), "{path}");
        }
        for reference in ["..%2f..%2fx", "..", ".hidden", "%2e%2e", "a%2fb%00", ""] {
            match Endpoint::find(&format!("/v2/a/manifests/{reference}")) {
                Ok(Endpoint::Manifest { reference, .. }) => assert!(reference.is_err()),
                Ok(other) => panic!("{other:?}"),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn a_query_is_decoded() {
        let query = Query::parse(Some("digest=sha256%3Aab&n=5&bad=%f&artifactType=a%2Bb+c"));
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("artifactType"), Some("a+b c"));
        assert_eq!(query.get("bad"), None);
        assert_eq!(query.count(3).unwrap(), 3);
        assert!(Query::parse(Some("n=-1")).count(3).is_err());
        assert_eq!(Query::parse(Some("n=99999999999999999999999")).count(3).unwrap(), 3);
    }
}
