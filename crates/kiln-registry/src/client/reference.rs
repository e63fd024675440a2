//! Where an image is, as people write it: `registry.example.org:5000/shop/web:v1`.

use std::fmt;
use std::str::FromStr;

use crate::digest::ContentDigest;
use crate::name::{Reference, RepositoryName, Tag};

/// What names without a host mean, as with every other tool.
const DOCKER_HUB: &str = "docker.io";

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// The registry: a host, perhaps with a port.
    pub host: String,
    /// The repository in it.
    pub repository: RepositoryName,
    /// Which of its manifests; a digest if both are given.
    pub reference: Reference,
}

/// The text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no image in a registry: {reason}")]
pub struct ParseReferenceError {
    text: String,
    reason: String,
}

impl ImageReference {
    /// The host that is connected to: Docker's hub answers under another name than it has.
    pub fn endpoint(&self) -> &str {
        if self.host == DOCKER_HUB { "registry-1.docker.io" } else { &self.host }
    }

    /// Whether the registry is on this machine, where nobody listens to what is sent.
    pub fn is_loopback(&self) -> bool {
        let name = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ImageReference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason: String| ParseReferenceError { text: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<ContentDigest>().map_err(|error| fail(error.to_string()))?))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let tag: Tag = tag.unwrap_or("latest").parse().map_err(|error| fail(format!("{error}")))?;
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
            Some(_) => (DOCKER_HUB, name.to_owned()),
            None => (DOCKER_HUB, format!("library/{name}")),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if !host.bytes().all(is_host) {
            return Err(fail("its host has characters that no host has".into()));
        }
        let repository = path.parse().map_err(|error| fail(format!("{error}")))?;
        let reference = digest.map_or(Reference::Tag(tag), Reference::Digest);
        Ok(Self { host: host.to_owned(), repository, reference })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joint = if matches!(self.reference, Reference::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{joint}{}", self.host, self.repository, self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let hex = "a".repeat(64);
        for (text, read) in [
            ("debian", "docker.io/library/debian:latest".to_owned()),
            ("shop/web:v1", "docker.io/shop/web:v1".to_owned()),
            ("localhost/web", "localhost/web:latest".to_owned()),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1".to_owned()),
            ("r.example.org:5000/a", "r.example.org:5000/a:latest".to_owned()),
            (&format!("r.example.org/a:v1@sha256:{hex}"), format!("r.example.org/a@sha256:{hex}")),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), read);
        }
        for text in [
            "",
            "A",
            "a:",
            "a/../b",
            "r.example.org/",
            "ex ample.org/a",
            "a@sha256:x",
            "h.x/a?b",
            "u:p@h.x/a",
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, is) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("127.0.0.1.example.org", false),
            ("localhost.example.org", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(format!("{host}/a").parse::<ImageReference>().unwrap().is_loopback(), is, "{host}");
        }
    }
}
