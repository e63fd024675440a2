//! What a registry has that is about a manifest.
//!
//! Source: the OCI distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema".

use std::io::Read as _;

use super::exchange::{Outgoing, header, resolve};
use super::{Client, ClientError};
use crate::digest::ContentDigest;
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, OCI_INDEX, Target};
use crate::name::Reference;

/// Pages of a list. A registry that has more to say about one image has something else in mind.
const PAGES_MAX: usize = 20;

impl Client {
    /// Lists the manifests that are about another, as far as the registry says: of a list without end the beginning.
    ///
    /// # Errors
    /// See [`ClientError`]. That it keeps no such list is none.
    pub fn referrers(&self, subject: &ContentDigest) -> Result<Vec<Target>, ClientError> {
        let mut url = self.path(&format!("referrers/{subject}"));
        let mut found = Vec::new();
        for page in 0..PAGES_MAX {
            let answer =
                self.send(&Outgoing::new("GET", url.clone()).header("accept", OCI_INDEX.to_owned()))?;
            let is_list = header(&answer, "content-type").is_some_and(|kind| kind.starts_with(OCI_INDEX));
            let status = answer.status().as_u16();
            match status {
                200 if is_list => {}
                401 | 403 | 429 | 500.. => return Err(self.failure(answer, "list of referrers")),
                // One that knows no such list answers in many ways, some with a page for people.
                _ if page == 0 => return self.tagged_referrers(subject),
                _ => return Ok(found),
            }
            let next = header(&answer, "link").and_then(next_page).and_then(|next| resolve(&url, next));
            let mut bytes = Vec::new();
            let reader = answer.into_body().into_reader().take(MANIFEST_BYTES_MAX as u64 + 1);
            { reader }
                .read_to_end(&mut bytes)
                .map_err(|source| ClientError::Unreachable { host: self.host(), source: source.into() })?;
            found.extend(self.entries(&bytes)?);
            match next {
                // The token of this registry is for nobody else.
                Some(next) if next.starts_with(&format!("{}/", self.origin)) => url = next,
                _ => break,
            }
        }
        Ok(found)
    }

    /// Reads the list under the tag that a registry without lists of its own has instead.
    fn tagged_referrers(&self, subject: &ContentDigest) -> Result<Vec<Target>, ClientError> {
        match self.manifest(&referrers_tag(subject)) {
            Ok((bytes, _)) => self.entries(&bytes),
            Err(ClientError::Missing { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn entries(&self, bytes: &[u8]) -> Result<Vec<Target>, ClientError> {
        let wrong = |reason: String| ClientError::Wrong {
            host: self.host(),
            what: "the list of referrers".into(),
            reason,
        };
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(wrong(format!("it has more than {MANIFEST_BYTES_MAX} bytes")));
        }
        Ok(Manifest::parse(None, bytes).map_err(|error| wrong(error.to_string()))?.manifests)
    }
}

/// The tag of the list of what is about a manifest.
pub(super) fn referrers_tag(subject: &ContentDigest) -> Reference {
    let hex = &subject.hex()[..subject.hex().len().min(64)];
    let tag = format!("{}-{hex}", subject.algorithm().name());
    Reference::Tag(tag.parse().expect("an algorithm and digits are a tag"))
}

/// Where a `Link` header (RFC 8288) says that the next page is.
fn next_page(link: &str) -> Option<&str> {
    let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|it| matches!(it.trim(), r#"rel="next""# | "rel=next"));
    is_next.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_the_next_page_is_told_from_others() {
        assert_eq!(next_page(r#"</v2/a?last=x>; rel="next""#), Some("/v2/a?last=x"));
        assert_eq!(next_page("</v2/a>;rel=next"), Some("/v2/a"));
        for other in [r#"</v2/a>; rel="prev""#, "/v2/a", "<", ""] {
            assert_eq!(next_page(other), None, "{other}");
        }
    }
}
