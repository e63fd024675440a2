//! Registries, for a bake that starts from an image of one.

use kiln_bake::{Registries, RegistriesError, Resolved};
use kiln_model::Digest;
use kiln_model::image::Image;
use kiln_registry::client::credentials::docker_config;
use kiln_registry::client::trust::folders;
use kiln_registry::client::{Client, ClientError, ClientOptions, ImageReference, Purpose};
use kiln_registry::image::{ImageError, bring_in, bring_said, resolve};
use kiln_registry::name::Reference;
use kiln_store::Store;

/// Any registry, with the credentials that `docker login` keeps: over TLS, but for one on this machine
/// and for those that this machine's settings except.
#[derive(Debug)]
pub(crate) struct AnyRegistry;

impl AnyRegistry {
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
        let (client, reference) = Self::client(name)?;
        let (manifest, list) = resolve(&client, &reference.reference).map_err(|error| failed(name, error))?;
        Ok(Resolved { manifest, list })
    }

    fn repository(&self, name: &str) -> Result<String, RegistriesError> {
        let (_, reference) = Self::client(name)?;
        Ok(format!("{}/{}", reference.host, reference.repository))
    }

    fn bring_said(&self, store: &Store, name: &str, subject: &Digest) -> Result<(), RegistriesError> {
        let (client, _) = Self::client(name)?;
        bring_said(store, &client, subject).map(|_| ()).map_err(|error| failed(name, error))
    }

    fn fetch(&self, store: &Store, name: &str, manifest: &Digest) -> Result<Image, RegistriesError> {
        let (client, _) = Self::client(name)?;
        let locked = manifest.to_string().parse().expect("a digest of the store is one of a registry");
        bring_in(store, &client, &Reference::Digest(locked), name).map_err(|error| failed(name, error))
    }
}

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
        ImageError::Client(ClientError::Unreachable { .. }) => (
            Some("check the network; what was fetched before is baked without the registry".to_owned()),
            false,
        ),
        ImageError::Client(_) | ImageError::Put(_) => (None, false),
        _ => (None, true),
    };
    RegistriesError { name: name.into(), hint, is_permanent, source: Box::new(error) }
}
