//! Manifests and blobs from a registry.

use std::io::{Read, Write};

use super::exchange::{Outgoing, header};
use super::{ATTEMPTS_MAX, Client, ClientError, RETRY_PAUSE};
use crate::digest::{Algorithm, ContentDigest, Hasher};
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_BYTES_MAX, OCI_INDEX, OCI_MANIFEST, Target};
use crate::name::Reference;

/// Copies go through a buffer of this size.
const COPY_BYTES: usize = 128 << 10;

impl Client {
    /// Fetches a manifest, and verifies it where it is asked for by digest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Option<String>), ClientError> {
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
        let request =
            Outgoing::new("GET", self.path(&format!("manifests/{reference}"))).header("accept", accept);
        let what = format!("manifest {reference} of {}", self.reference.repository);
        let answer = self.send(&request)?;
        let kind = header(&answer, "content-type").map(str::to_owned);
        let is_page = kind.as_deref().is_some_and(|kind| kind.starts_with("text/html"));
        if answer.status().as_u16() != 200 || is_page {
            return Err(self.failure(answer, &what));
        }
        let wrong = |reason: String| ClientError::Wrong { host: self.host(), what: what.clone(), reason };
        let mut bytes = Vec::new();
        let mut reader = answer.into_body().into_reader().take(MANIFEST_BYTES_MAX as u64 + 1);
        reader
            .read_to_end(&mut bytes)
            .map_err(|source| ClientError::Unreachable { host: self.host(), source: source.into() })?;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(wrong(format!("it has more than {MANIFEST_BYTES_MAX} bytes")));
        }
        if let Reference::Digest(digest) = reference {
            let found = ContentDigest::of(digest.algorithm(), &bytes);
            if found != *digest {
                return Err(wrong(format!("its digest is {found}")));
            }
        }
        Ok((bytes, kind))
    }

    /// Writes a blob of a known digest and size, and goes on where a connection breaks off.
    ///
    /// # Errors
    /// See [`ClientError`]; what was written is not the blob.
    pub fn blob(&self, target: &Target, sink: &mut dyn Write) -> Result<(), ClientError> {
        let mut download =
            Download { client: self, target, sink, hasher: Hasher::new(target.digest.algorithm()), done: 0 };
        let mut pause = RETRY_PAUSE;
        for attempt in 1..=ATTEMPTS_MAX {
            let before = download.done;
            match download.go_on() {
                Ok(()) => return download.check(),
                // One that gets on is not counted with one that does not: a blob may be longer than a line lasts.
                Err(ClientError::Unreachable { .. }) if attempt < ATTEMPTS_MAX || download.done > before => {}
                Err(error) => return Err(error),
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        download.go_on()?;
        download.check()
    }

    /// Whether the registry has a blob.
    pub(super) fn has_blob(&self, digest: &ContentDigest) -> Result<bool, ClientError> {
        let answer = self.send(&Outgoing::new("HEAD", self.blob_url(digest)))?;
        match answer.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.failure(answer, &digest.to_string())),
        }
    }

    /// Whether the registry has this manifest under its digest.
    pub(super) fn has_manifest(&self, bytes: &[u8]) -> Result<bool, ClientError> {
        let digest = ContentDigest::of(Algorithm::Sha256, bytes);
        let request = Outgoing::new("HEAD", self.path(&format!("manifests/{digest}")));
        Ok(self.send(&request)?.status().as_u16() == 200)
    }
}

struct Download<'a> {
    client: &'a Client,
    target: &'a Target,
    sink: &'a mut dyn Write,
    hasher: Hasher,
    done: u64,
}

impl Download<'_> {
    fn go_on(&mut self) -> Result<(), ClientError> {
        let Target { digest, size } = self.target;
        if self.done == *size && self.done > 0 {
            return Ok(());
        }
        let mut request = Outgoing::new("GET", self.client.blob_url(digest));
        if self.done > 0 {
            request = request.header("range", format!("bytes={}-", self.done));
        }
        let answer = self.client.send(&request)?;
        let is_page = header(&answer, "content-type").is_some_and(|kind| kind.starts_with("text/html"));
        let skip = match answer.status().as_u16() {
            200 if !is_page => self.done,
            206 if header(&answer, "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {}-", self.done))) =>
            {
                0
            }
            206 => return Err(self.wrong("it sent another part than was asked for".into())),
            _ => return Err(self.client.failure(answer, &digest.to_string())),
        };
        self.take(&mut answer.into_body().into_reader(), skip)
    }

    /// Takes what comes; the first `skip` bytes are there already.
    fn take(&mut self, reader: &mut dyn Read, mut skip: u64) -> Result<(), ClientError> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) if self.done == self.target.size => return Ok(()),
                Ok(0) => return Err(self.broken("it ended too early".into())),
                Ok(count) => count,
                Err(error) => return Err(self.broken(error.into())),
            };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
            skip -= known as u64;
            let fresh = &buffer[known..count];
            // Before it is written: a stream without end fills no disk.
            if self.done + fresh.len() as u64 > self.target.size {
                return Err(self.wrong(format!("it has more than the promised {} bytes", self.target.size)));
            }
            self.sink.write_all(fresh).map_err(ClientError::Local)?;
            self.hasher.update(fresh);
            self.done += fresh.len() as u64;
        }
    }

    fn check(&self) -> Result<(), ClientError> {
        let found = self.hasher.digest();
        if found == self.target.digest {
            return Ok(());
        }
        Err(self.wrong(format!("its digest is {found}")))
    }

    fn broken(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Unreachable { host: self.client.host(), source }
    }

    fn wrong(&self, reason: String) -> ClientError {
        ClientError::Wrong { host: self.client.host(), what: self.target.digest.to_string(), reason }
    }
}
