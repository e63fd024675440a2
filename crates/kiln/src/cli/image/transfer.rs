//! `kiln image push` and `kiln image pull`

use std::path::PathBuf;

use kiln_model::{ByteSize, Digest};
use kiln_registry::client::credentials::docker_config;
use kiln_registry::client::trust::folders;
use kiln_registry::client::{Client, ClientError, ClientOptions, ImageReference, Purpose};
use kiln_registry::image::{
    Brought, DockerArchive, DockerArchiveError, ImageError, Layout, LayoutError, PushSummary, bring_in,
    bring_said, push,
};
use kiln_registry::name::{Reference, Tag};
use kiln_store::Store;
use serde_json::json;

use super::{Context, Exit, Failure, Outcome};

/// How a registry is spoken to.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    /// Speak plain HTTP to another machine, too
    #[arg(long)]
    insecure: bool,
    /// Trust these authorities as well, and speak TLS to this machine, too
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
}

impl Options {
    fn client(&self) -> ClientOptions {
        ClientOptions {
            insecure: self.insecure,
            authority: self.ca.clone(),
            docker_config: docker_config(),
            settings: folders(),
        }
    }
}

/// Where an image goes, or comes from.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Place {
    /// `HOST/NAME:TAG`
    Registry(ImageReference),
    /// `oci:DIR[:TAG]`
    Folder {
        /// The folder.
        path: PathBuf,
        /// The tag in it.
        tag: Option<Tag>,
    },
    /// `docker-archive:FILE[:NAME:TAG]`
    File {
        /// The file.
        path: PathBuf,
        /// The name in it.
        name: Option<String>,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Folder { path, tag: Some(tag) } => write!(f, "oci:{}:{tag}", path.display()),
            Self::Folder { path, tag: None } => write!(f, "oci:{}", path.display()),
            Self::File { path, name: Some(name) } => write!(f, "docker-archive:{}:{name}", path.display()),
            Self::File { path, name: None } => write!(f, "docker-archive:{}", path.display()),
        }
    }
}

/// Reads `HOST/NAME:TAG`, `oci:DIR[:TAG]` or `docker-archive:FILE[:NAME:TAG]`.
pub(in crate::cli) fn place(text: &str) -> Result<Place, String> {
    if let Some(rest) = text.strip_prefix("docker-archive:") {
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name.to_owned())),
            None => (rest, None),
        };
        if path.is_empty() || name.as_ref().is_some_and(|name| !name.contains(':')) {
            return Err("expected docker-archive:FILE or docker-archive:FILE:NAME:TAG".into());
        }
        return Ok(Place::File { path: path.into(), name });
    }
    let Some(rest) = text.strip_prefix("oci:") else {
        return text.parse().map(Place::Registry).map_err(|error| format!("{error}"));
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => {
            (path, Some(tag.parse().map_err(|error| format!("{error}"))?))
        }
        _ => (rest, None),
    };
    if path.is_empty() {
        return Err("expected oci:DIR or oci:DIR:TAG".into());
    }
    Ok(Place::Folder { path: path.into(), tag })
}

pub(super) fn push_image(
    store: &Store,
    (digest, name): (Digest, &str),
    to: &Place,
    options: &Options,
    context: &mut Context<'_>,
) -> Outcome {
    let failed = |error: ImageError| failure(&format!("{name} can't be pushed to {to}"), &error);
    context.screen.note(&format!("pushing {} to {to}", digest.short()));
    // What is sent must not be collected meanwhile.
    let _lease = lease(store, &format!("push {to}"))?;
    let summary = match to {
        Place::Registry(reference) => {
            let client = Client::new(reference, Purpose::Push, &options.client());
            let client = client.map_err(|error| failed(error.into()))?;
            push(store, &digest, &client, &reference.reference).map_err(failed)?
        }
        Place::Folder { path, tag } => {
            Layout::new(path).write(store, &digest, tag.as_ref()).map_err(failed)?;
            PushSummary::default()
        }
        Place::File { path, name } => {
            DockerArchive::write(store, &digest, path, name.as_deref()).map_err(failed)?;
            PushSummary::default()
        }
    };
    if context.screen.json() {
        let answer = json!({
            "digest": digest.to_string(),
            "to": to.to_string(),
            "sent_blobs": summary.sent,
            "sent_bytes": summary.sent_bytes,
            "referrers": summary.referrers,
        });
        context.screen.answer(&answer);
    } else {
        let amount = match to {
            Place::Registry(_) if summary.sent == 0 => "; it had every layer".to_owned(),
            Place::Registry(_) => format!("; {} sent", ByteSize(summary.sent_bytes)),
            Place::Folder { .. } | Place::File { .. } => String::new(),
        };
        context.screen.line(&format!("{to} is {digest}{amount}"));
    }
    Ok(Exit::Done)
}

pub(super) fn pull_image(
    store: &Store,
    from: &Place,
    options: &Options,
    context: &mut Context<'_>,
) -> Outcome {
    let failed = |error: ImageError| failure(&format!("{from} can't be pulled"), &error);
    context.screen.note(&format!("pulling {from}"));
    let _lease = lease(store, &format!("pull {from}"))?;
    let mut brought = Brought::default();
    let image = match from {
        Place::Registry(reference) => {
            let client = Client::new(reference, Purpose::Pull, &options.client());
            let client = client.map_err(|error| failed(error.into()))?;
            let image = bring_in(store, &client, &reference.reference, &from.to_string()).map_err(failed)?;
            brought = match bring_said(store, &client, &image.manifest) {
                // The image is here all the same.
                Err(ImageError::Client(error)) => {
                    Brought { left_out: vec![format!("its referrers: {error}")], ..Brought::default() }
                }
                other => other.map_err(failed)?,
            };
            image
        }
        Place::Folder { path, tag } => {
            let layout = Layout::new(path);
            let found = layout.find(tag.as_ref()).map_err(|error| failed(error.into()))?;
            bring_in(store, &layout, &Reference::Digest(found), &from.to_string()).map_err(failed)?
        }
        Place::File { path, name } => {
            let archive = DockerArchive::open(path, name.as_deref()).map_err(|error| failed(error.into()))?;
            bring_in(store, &archive, &Reference::Digest(archive.digest()), &from.to_string())
                .map_err(failed)?
        }
    };
    for left_out in &brought.left_out {
        context.screen.note(&format!("what is said about the image is not all here: {left_out}"));
    }
    // It stays as long as it has a name.
    let named = store.images.set_name(&from.to_string(), &image.manifest);
    named.map_err(|error| failed(error.into()))?;
    if context.screen.json() {
        let answer = json!({
            "digest": image.manifest.to_string(), "name": from.to_string(), "size_bytes": image.size_bytes,
            "referrers": brought.manifests, "left_out": brought.left_out,
        });
        context.screen.answer(&answer);
    } else {
        let size = ByteSize(image.size_bytes);
        context.screen.line(&format!("{from} is {}, {size} unpacked", image.manifest));
    }
    Ok(Exit::Done)
}

fn lease(store: &Store, purpose: &str) -> Result<kiln_store::Lease, Failure> {
    let lease = store.leases.take(purpose);
    lease.map_err(|error| Failure::external("the store can't be written").caused_by(&error))
}

fn failure(message: &str, error: &ImageError) -> Failure {
    let failure = match error {
        ImageError::Client(ClientError::Denied { host, .. }) => Failure::refused(message)
            .hint(format!("`docker login {host}` keeps a user and a password where this looks for them")),
        ImageError::Client(ClientError::Missing { .. })
        | ImageError::Layout(LayoutError::Missing { .. })
        | ImageError::DockerArchive(DockerArchiveError::Missing { .. }) => {
            Failure::refused(message).hint("look at its name, its tag, and who may see it")
        }
        ImageError::Client(ClientError::Unencrypted { .. }) => {
            Failure::refused(message).hint("--insecure sends it all the same, for everybody on the way to read")
        }
        ImageError::Client(ClientError::Unreachable { .. }) => Failure::external(message).hint(
            "the command goes on where it was; a registry without TLS is spoken to with --insecure, one with a \
             certificate of its own with --ca",
        ),
        ImageError::Client(ClientError::NotARegistry { .. }) => {
            Failure::external(message).hint("look at the name of the host, and for a proxy on the way to it")
        }
        ImageError::NoPlatform { .. } | ImageError::Algorithm(_) => Failure::refused(message),
        _ => Failure::external(message),
    };
    failure.caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_registrys_or_a_folder() {
        for (text, read) in [
            ("localhost:5000/web", "localhost:5000/web:latest"),
            ("oci:out", "oci:out"),
            ("oci:/tmp/out:v1", "oci:/tmp/out:v1"),
            ("oci:../a:b/c", "oci:../a:b/c"),
            ("docker-archive:out.tar", "docker-archive:out.tar"),
            ("docker-archive:out.tar:shop/web:v1", "docker-archive:out.tar:shop/web:v1"),
        ] {
            assert_eq!(place(text).unwrap().to_string(), read);
        }
        for text in ["oci:", "oci:out:.x", "Not/A/Name", "docker-archive:", "docker-archive:x:web"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
