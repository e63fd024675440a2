//! Where images of registries come from: a door in the wall of this crate, which knows no registry itself.

use std::error::Error;
use std::fmt;

use kiln_model::Digest;
use kiln_model::image::Image;
use kiln_store::Store;

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest for this machine.
    pub manifest: Digest,
    /// The list for several machines that the name stands for, where it does.
    pub list: Option<Digest>,
}

/// Where images of registries come from.
pub trait Registries: fmt::Debug + Send + Sync {
    /// Finds the manifest that a name means today, for this machine.
    ///
    /// # Errors
    /// It is not there, or can't be asked for.
    fn resolve(&self, name: &str) -> Result<Resolved, RegistriesError>;

    /// Returns the registry and the repository of a name, in full: `docker.io/library/debian`.
    ///
    /// # Errors
    /// It is no such name.
    fn repository(&self, name: &str) -> Result<String, RegistriesError>;

    /// Brings into the store what the registry of a name says about a manifest or a list, and that itself. A lease is held
    /// meanwhile.
    ///
    /// # Errors
    /// The registry does not answer, or it can't be stored. That nothing is said is none.
    fn bring_said(&self, store: &Store, name: &str, subject: &Digest) -> Result<(), RegistriesError>;

    /// Brings the image of a name with this very manifest into the store. A lease is held meanwhile.
    ///
    /// # Errors
    /// It is not there, is something else, or can't be stored.
    fn fetch(&self, store: &Store, name: &str, manifest: &Digest) -> Result<Image, RegistriesError>;
}

/// An image of a registry can't be had.
#[derive(Debug, thiserror::Error)]
#[error("the image `{name}` can't be had")]
pub struct RegistriesError {
    /// Which one.
    pub name: String,
    /// What to do next; none where the cause says it.
    pub hint: Option<String>,
    /// Whether another attempt would fail again.
    pub is_permanent: bool,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// A baker that was given no registries.
#[derive(Debug)]
pub(crate) struct NoRegistries;

impl NoRegistries {
    fn refuse(name: &str) -> RegistriesError {
        let source = "this baker was not told how registries are reached".into();
        RegistriesError { name: name.into(), hint: None, is_permanent: true, source }
    }
}

impl Registries for NoRegistries {
    fn resolve(&self, name: &str) -> Result<Resolved, RegistriesError> {
        Err(Self::refuse(name))
    }

    fn repository(&self, name: &str) -> Result<String, RegistriesError> {
        Err(Self::refuse(name))
    }

    fn bring_said(&self, _: &Store, name: &str, _: &Digest) -> Result<(), RegistriesError> {
        Err(Self::refuse(name))
    }

    fn fetch(&self, _: &Store, name: &str, _: &Digest) -> Result<Image, RegistriesError> {
        Err(Self::refuse(name))
    }
}
