//! Manifests and blobs into a registry.

use std::fs::File;

use serde_json::{Value, json};
use ureq::Body;
use ureq::http::Response;

use super::exchange::{Outgoing, Payload, header, resolve};
use super::referrers::referrers_tag;
use super::{ATTEMPTS_MAX, Client, ClientError, RETRY_PAUSE};
use crate::digest::{Algorithm, ContentDigest};
use crate::manifest::{Manifest, OCI_INDEX, Target};
use crate::name::Reference;
use crate::query::encode;

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The repository has it already.
    There,
    /// The registry had it elsewhere, and gave it to the repository.
    Mounted,
    /// It was sent.
    Sent,
}

impl Client {
    /// Gives a blob to the repository, from the beginning of a file.
    ///
    /// # Errors
    /// See [`ClientError`]; what was sent in part is forgotten by the registry some time.
    pub fn push_blob(&self, target: &Target, file: &File) -> Result<Pushed, ClientError> {
        if self.has_blob(&target.digest)? {
            return Ok(Pushed::There);
        }
        // A registry that can't mount begins an upload instead, so asking costs nothing.
        let mut begun = self.begin(&format!("?mount={}", encode(&target.digest.to_string())))?;
        if begun.status().as_u16() == 201 {
            return Ok(Pushed::Mounted);
        }
        let mut pause = RETRY_PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            let upload = self.location(&begun)?;
            match self.send_whole(&upload, target, file) {
                Err(ClientError::Unreachable { .. }) => {}
                done => return done.map(|()| Pushed::Sent),
            }
            std::thread::sleep(pause);
            pause *= 2;
            match self.go_on(upload, target, file) {
                Err(ClientError::Unreachable { .. } | ClientError::Missing { .. }) => {
                    begun = self.begin("")?
                }
                done => return done.map(|()| Pushed::Sent),
            }
        }
        let upload = self.location(&begun)?;
        self.send_whole(&upload, target, file).map(|()| Pushed::Sent)
    }

    fn begin(&self, query: &str) -> Result<Response<Body>, ClientError> {
        let answer = self.send(&Outgoing::new("POST", self.path(&format!("blobs/uploads/{query}"))))?;
        match answer.status().as_u16() {
            201 | 202 => Ok(answer),
            _ => Err(self.failure(answer, &format!("repository {}", self.reference.repository))),
        }
    }

    fn location(&self, answer: &Response<Body>) -> Result<String, ClientError> {
        let location = header(answer, "location").and_then(|to| resolve(&format!("{}/", self.origin), to));
        location.ok_or_else(|| self.not_a_registry("it does not say where to send a blob"))
    }

    /// Sends all of it with the request that closes the upload.
    fn send_whole(&self, upload: &str, target: &Target, file: &File) -> Result<(), ClientError> {
        self.close(upload, target, Payload::File { file, from: 0, size: target.size })
    }

    fn close(&self, upload: &str, target: &Target, payload: Payload<'_>) -> Result<(), ClientError> {
        let joint = if upload.contains('?') { '&' } else { '?' };
        let url = format!("{upload}{joint}digest={}", encode(&target.digest.to_string()));
        let request =
            Outgoing::new("PUT", url).header("content-type", "application/octet-stream").payload(payload);
        // Once: after a failure the registry may hold a part of it, and is asked for how much.
        let answer = self.authorized(&request)?;
        match answer.status().as_u16() {
            201 => Ok(()),
            _ => Err(self.failure(answer, "such upload")),
        }
    }

    /// Sends what a registry lacks of an upload that broke off.
    fn go_on(&self, upload: String, target: &Target, file: &File) -> Result<(), ClientError> {
        if self.has_blob(&target.digest)? {
            // It was the answer that got lost.
            return Ok(());
        }
        let state = self.send(&Outgoing::new("GET", upload))?;
        if state.status().as_u16() != 204 {
            return Err(self.failure(state, "such upload"));
        }
        let upload = self.location(&state)?;
        let last = header(&state, "range").and_then(|range| range.split_once('-')?.1.parse::<u64>().ok());
        let last = last.filter(|last| *last < target.size);
        // `0-0` is what registries say of nothing, and of one byte.
        let Some(last) = last.filter(|last| *last > 0) else {
            return Err(ClientError::Missing { host: self.host(), what: "part of the upload".into() });
        };
        let from = last + 1;
        if from == target.size {
            return self.close(&upload, target, Payload::None);
        }
        let request = Outgoing::new("PATCH", upload)
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{from}-{}", target.size - 1))
            .payload(Payload::File { file, from, size: target.size - from });
        let answer = self.authorized(&request)?;
        match answer.status().as_u16() {
            202 => self.close(&self.location(&answer)?, target, Payload::None),
            // What was still on its way arrived since, or is being written: another upload is not in its way.
            409 | 416 => {
                Err(ClientError::Missing { host: self.host(), what: "such place in the upload".into() })
            }
            _ => Err(self.failure(answer, "such upload")),
        }
    }

    /// Gives a manifest to the repository, under a tag or its digest. Its blobs must be there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn push_manifest(&self, reference: &Reference, kind: &str, bytes: &[u8]) -> Result<(), ClientError> {
        if let Reference::Digest(digest) = reference {
            let found = ContentDigest::of(digest.algorithm(), bytes);
            if found != *digest {
                let (host, what) = (self.host(), digest.to_string());
                return Err(ClientError::Wrong { host, what, reason: format!("the image is {found}") });
            }
            if self.has_manifest(bytes)? {
                return Ok(());
            }
        }
        self.put_manifest(reference, kind, bytes).map(|_| ())
    }

    /// Sends a manifest, and returns whether the registry lists it as being about its subject.
    fn put_manifest(&self, reference: &Reference, kind: &str, bytes: &[u8]) -> Result<bool, ClientError> {
        let request = Outgoing::new("PUT", self.path(&format!("manifests/{reference}")))
            .header("content-type", kind)
            .payload(Payload::Bytes(bytes));
        let answer = self.send(&request)?;
        match answer.status().as_u16() {
            201 => Ok(header(&answer, "oci-subject").is_some()),
            _ => Err(self.failure(answer, &format!("repository {}", self.reference.repository))),
        }
    }

    /// Gives a manifest that is about another to the repository, under its digest. A registry that keeps no list of such
    /// manifests gets one, under the tag that the specification has for that.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn push_referrer(&self, manifest: &Manifest, bytes: &[u8]) -> Result<(), ClientError> {
        let digest = ContentDigest::of(Algorithm::Sha256, bytes);
        // Sent even if it is there: it may be there without being on the list.
        let is_listed = self.put_manifest(&Reference::Digest(digest.clone()), &manifest.media_type, bytes)?;
        match &manifest.subject {
            Some(subject) if !is_listed => {
                let descriptor = serde_json::to_value(manifest.descriptor(&digest, bytes.len() as u64));
                self.list_referrer(subject, descriptor.expect("a descriptor has string keys only"))
            }
            _ => Ok(()),
        }
    }

    /// The specification's "Referrers Tag Schema".
    fn list_referrer(&self, subject: &ContentDigest, entry: Value) -> Result<(), ClientError> {
        let tag = referrers_tag(subject);
        let mut list: Value = match self.manifest(&tag) {
            Ok((bytes, _)) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(ClientError::Missing { .. }) => {
                json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] })
            }
            Err(error) => return Err(error),
        };
        // Somebody's tag that only looks like that of a list is his.
        let entries = match list.get_mut("manifests") {
            Some(Value::Array(entries)) => entries,
            _ => {
                let (host, what) = (self.host(), format!("{tag}"));
                return Err(ClientError::Wrong {
                    host,
                    what,
                    reason: "it is not a list of referrers".into(),
                });
            }
        };
        if entries.iter().any(|known| known["digest"] == entry["digest"]) {
            return Ok(());
        }
        entries.push(entry);
        self.put_manifest(&tag, OCI_INDEX, list.to_string().as_bytes()).map(|_| ())
    }
}
