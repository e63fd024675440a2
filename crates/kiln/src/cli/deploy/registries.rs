//! Registries, for a bake that starts from an image of one.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use kiln_bake::{Registries, RegistriesError, Resolved};
use kiln_config::{Diagnostic, ImageFile};
use kiln_model::Digest;
use kiln_model::image::Image;
use kiln_registry::client::credentials::docker_config;
use kiln_registry::client::trust::folders;
use kiln_registry::client::{Client, ClientError, ClientOptions, ImageReference, Purpose};
use kiln_registry::image::{DockerArchive, ImageError, Layout, Origin, bring_in, bring_said, resolve};
use kiln_registry::name::Reference;
use kiln_store::Store;

use super::load::Found;
use super::lockfile;
use crate::cli::image::{Place, place};

/// Any registry, with the credentials that `docker login` keeps: over TLS, but for one on this machine
/// and for those that this machine's settings except. Beside them folders and files of images.
#[derive(Debug)]
pub(crate) struct AnyRegistry {
    /// What the paths of folders and files are relative to.
    pub folder: PathBuf,
}

/// A folder or a file of images, opened.
struct Files {
    origin: Box<dyn Origin>,
    /// The manifest of the image that is meant.
    manifest: Reference,
}

impl AnyRegistry {
    /// Opens what a name means that is none of a registry: the stack has `./` or `/` before such a path. Without `manifest` it is
    /// what its tag, or its name, means today.
    fn files(&self, name: &str, manifest: Option<&Digest>) -> Result<Option<Files>, ImageError> {
        let is_path = |(_, path): (&str, &str)| path.starts_with(['.', '/']);
        if !name.split_once(':').is_some_and(is_path) {
            return Ok(None);
        }
        let locked =
            manifest.map(|digest| digest.to_string().parse().expect("a digest of the store is one of OCI"));
        Ok(match place(name) {
            Ok(Place::Folder { path, tag }) => {
                let layout = Layout::new(self.folder.join(path));
                let found = locked.map_or_else(|| layout.find(tag.as_ref()), Ok)?;
                Some(Files { origin: Box::new(layout), manifest: Reference::Digest(found) })
            }
            Ok(Place::File { path, name }) => {
                let archive = DockerArchive::open(&self.folder.join(path), name.as_deref())?;
                let manifest = Reference::Digest(archive.digest());
                Some(Files { origin: Box::new(archive), manifest })
            }
            Ok(Place::Registry(_)) | Err(_) => None,
        })
    }

    fn client(name: &str) -> Result<(Client, ImageReference), RegistriesError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RegistriesError {
            name: name.into(),
            hint: None,
            is_permanent: true,
            source,
        };
        let reference: ImageReference = name.parse().map_err(|error| failed(Box::new(error)))?;
        let options =
            ClientOptions { docker_config: docker_config(), settings: folders(), ..ClientOptions::default() };
        let client =
            Client::new(&reference, Purpose::Pull, &options).map_err(|error| failed(Box::new(error)))?;
        Ok((client, reference))
    }
}

impl Registries for AnyRegistry {
    fn resolve(&self, name: &str) -> Result<Resolved, RegistriesError> {
        if let Some(files) = self.files(name, None).map_err(|error| failed(name, error))? {
            let found = resolve(&*files.origin, &files.manifest).map_err(|error| failed(name, error));
            return found.map(|(manifest, list)| Resolved { manifest, list });
        }
        let (client, reference) = Self::client(name)?;
        let (manifest, list) = resolve(&client, &reference.reference).map_err(|error| failed(name, error))?;
        Ok(Resolved { manifest, list })
    }

    fn repository(&self, name: &str) -> Result<String, RegistriesError> {
        match place(name) {
            Ok(Place::Folder { path, .. }) => return Ok(format!("oci:{}", path.display())),
            Ok(Place::File { path, .. }) => return Ok(format!("docker-archive:{}", path.display())),
            Ok(Place::Registry(_)) | Err(_) => {}
        }
        let (_, reference) = Self::client(name)?;
        Ok(format!("{}/{}", reference.host, reference.repository))
    }

    fn bring_said(&self, store: &Store, name: &str, subject: &Digest) -> Result<(), RegistriesError> {
        if matches!(place(name), Ok(Place::Folder { .. } | Place::File { .. })) {
            // They say nothing about what is in them; the store may know something.
            return Ok(());
        }
        let (client, _) = Self::client(name)?;
        bring_said(store, &client, subject).map(|_| ()).map_err(|error| failed(name, error))
    }

    fn fetch(&self, store: &Store, name: &str, manifest: &Digest) -> Result<Image, RegistriesError> {
        if let Some(files) = self.files(name, Some(manifest)).map_err(|error| failed(name, error))? {
            return bring_in(store, &*files.origin, &files.manifest, name)
                .map_err(|error| failed(name, error));
        }
        let (client, _) = Self::client(name)?;
        let locked = manifest.to_string().parse().expect("a digest of the store is one of a registry");
        bring_in(store, &client, &Reference::Digest(locked), name).map_err(|error| failed(name, error))
    }
}

/// Tells at its place which image of a folder or a file is not there. One that is locked was there once, and may be in the store.
pub(crate) fn check_files(found: &mut Found, folder: &Path) {
    let lock = lockfile::read(folder).ok().flatten();
    for ImageFile { name, file, span } in &found.image_files {
        let is_locked = lock.as_ref().is_some_and(|lock| lock.images.contains_key(name));
        let Some(why) = missing(name, folder).filter(|_| !is_locked) else { continue };
        let help = "`oci:DIR:TAG` is a folder in OCI's layout, `docker-archive:FILE:NAME:TAG` a file of `docker save`".to_owned();
        let message = format!("the image `{name}` is not there: {why}");
        let diagnostic = Diagnostic::of_text(&found.texts, file, span.clone(), CODE, &message, Some(help));
        found.diagnostics.push(diagnostic);
    }
}

/// Why an image of a folder or a file can't be there. A file is not looked into: that is to read all of it.
fn missing(name: &str, folder: &Path) -> Option<String> {
    match place(name) {
        Ok(Place::Folder { path, tag }) => {
            let error = Layout::new(folder.join(path)).find(tag.as_ref()).err()?;
            let (mut why, mut next) = (error.to_string(), error.source());
            while let Some(cause) = next {
                why.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            Some(why)
        }
        Ok(Place::File { path, .. }) => match std::fs::metadata(folder.join(path)) {
            Ok(meta) if meta.is_file() => None,
            Ok(_) => Some("it is no file".into()),
            Err(error) => Some(error.to_string()),
        },
        Ok(Place::Registry(_)) | Err(_) => None,
    }
}

/// How a missing image is called in answers.
const CODE: &str = "missing-image";

fn failed(name: &str, error: ImageError) -> RegistriesError {
    let (hint, is_permanent) = match &error {
        ImageError::Client(ClientError::Denied { host, .. }) => (
            Some(format!("`docker login {host}` keeps a user and a password where this looks for them")),
            true,
        ),
        ImageError::Client(ClientError::Missing { .. }) => {
            let hint = "look at its name and its tag; where the registry dropped what kiln.lock has, run \
                        `kiln lock --upgrade`";
            (Some(hint.to_owned()), true)
        }
        ImageError::Layout(_) | ImageError::DockerArchive(_) => {
            let hint = "look at its path and its tag; where another image is there by now, run `kiln lock --upgrade`";
            (Some(hint.to_owned()), true)
        }
        ImageError::Client(ClientError::Unreachable { .. }) => (
            Some("check the network; what was fetched before is baked without the registry".to_owned()),
            false,
        ),
        ImageError::Client(_) | ImageError::Put(_) => (None, false),
        _ => (None, true),
    };
    RegistriesError { name: name.into(), hint, is_permanent, source: Box::new(error) }
}
