//! Whether an image of a registry is signed as the stack wants it, before anything is made from it.
//!
//! The store is asked first, then the registry: what was fetched before the stack wanted signatures may have some there.

use std::collections::BTreeMap;

use kiln_model::Digest;
use kiln_model::stack::RegistryRules;
use kiln_store::lease::LeaseError;
use kiln_store::{ReadError, Store};
use serde_json::Value;

use crate::outside::{Registries, RegistriesError};
use crate::signing::{KeyError, PublicKey, verify};

/// An image may not be started from.
#[derive(Debug, thiserror::Error)]
pub enum UnsignedError {
    /// It has no signature of a key that counts.
    #[error("`{name}` is not signed as the rule for `{rule}` wants it: {found}; wanted is one of key {keys}")]
    Unsigned {
        /// Its name.
        name: String,
        /// The rule that wants it.
        rule: String,
        /// What it is locked to, and what is there instead.
        found: String,
        /// The fingerprints of the keys.
        keys: String,
    },
    /// A key can't be read.
    #[error("`signed_by` of registry \"{rule}\" has a key that can't be used")]
    Key {
        /// The rule.
        rule: String,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// The registry does not tell.
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store can't be written.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl UnsignedError {
    /// Says what to do next; none where the error itself says it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unsigned { .. } => Some(
                "have its owner sign it and run `kiln lock --upgrade`, or name the key that it is signed by in `signed_by`"
                    .into(),
            ),
            Self::Key { .. } => {
                Some("a public key in PEM, as `kiln image keygen` and `cosign generate-key-pair` write it".into())
            }
            Self::Registries(error) => error.hint.clone(),
            Self::Read(_) | Self::Lease(_) => None,
        }
    }

    /// Whether another attempt would fail again.
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Registries(error) => error.is_permanent,
            Self::Lease(_) => false,
            _ => true,
        }
    }
}

/// What a name of a registry is locked to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Locked<'a> {
    pub(crate) name: &'a str,
    pub(crate) manifest: Digest,
    /// The list of images for several machines in which it was found.
    pub(crate) list: Option<Digest>,
}

/// Refuses an image that is not signed as the stack wants it. One that no rule is about needs no signature.
pub(crate) fn check(
    store: &Store,
    registries: &dyn Registries,
    rules: &BTreeMap<String, RegistryRules>,
    locked: Locked<'_>,
) -> Result<(), UnsignedError> {
    if rules.is_empty() {
        return Ok(());
    }
    let Some((rule, wanted)) = rule_for(rules, &registries.repository(locked.name)?) else { return Ok(()) };
    let key = |text: &String| {
        PublicKey::from_pem(text).map_err(|source| UnsignedError::Key { rule: rule.clone(), source })
    };
    let keys: Vec<PublicKey> = wanted.signed_by.iter().map(key).collect::<Result<_, _>>()?;
    let mut seen = look(store, &locked, &keys)?;
    if !seen.is_signed {
        let _lease = store.leases.take("signatures of an image")?;
        for digest in [Some(locked.manifest), locked.list].into_iter().flatten() {
            registries.bring_said(store, locked.name, &digest)?;
        }
        seen = look(store, &locked, &keys)?;
    }
    if seen.is_signed {
        return Ok(());
    }
    let fingerprints: Vec<String> = keys.iter().map(PublicKey::fingerprint).collect();
    Err(UnsignedError::Unsigned {
        name: locked.name.into(),
        rule: rule.clone(),
        found: match seen.has_others {
            false => format!("{} has no signature", locked.manifest),
            true => format!("{} has signatures of other keys or of something else only", locked.manifest),
        },
        keys: fingerprints.join(" or "),
    })
}

struct Seen {
    is_signed: bool,
    /// Whether there is any signature that does not count.
    has_others: bool,
}

/// What `cosign` signs by the name of an image for several machines is their list: a signature of that is one of all in it.
fn look(store: &Store, locked: &Locked<'_>, keys: &[PublicKey]) -> Result<Seen, ReadError> {
    let list =
        locked.list.map_or(Ok(None), |list| Ok(names(store, &list, &locked.manifest)?.then_some(list)));
    let mut seen = Seen { is_signed: false, has_others: false };
    for digest in [Some(locked.manifest), list?].into_iter().flatten() {
        for key in keys {
            let vouched = verify(store, &digest, key)?;
            seen.is_signed |= vouched.image;
            seen.has_others |= vouched.others > 0;
        }
    }
    Ok(seen)
}

/// Whether a list is in the store, whole, and names a manifest.
fn names(store: &Store, list: &Digest, manifest: &Digest) -> Result<bool, ReadError> {
    let bytes = match store.blobs.read_verified(list) {
        Ok(bytes) => bytes,
        Err(ReadError::Missing(_) | ReadError::Corrupt { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let list: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut entries = list["manifests"].as_array().into_iter().flatten();
    Ok(entries.any(|entry| entry["digest"] == manifest.to_string()))
}

/// Finds the rule that says most of a repository: `*` is about all, and else whole parts of a name count.
fn rule_for<'a>(
    rules: &'a BTreeMap<String, RegistryRules>,
    repository: &str,
) -> Option<(&'a String, &'a RegistryRules)> {
    let is_about = |rule: &str| {
        let rest = repository.strip_prefix(rule);
        rule == "*" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let length = |rule: &str| if rule == "*" { 0 } else { rule.len() };
    rules.iter().filter(|(rule, _)| is_about(rule)).max_by_key(|(rule, _)| length(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_says_most_of_a_name_counts_by_whole_parts() {
        let rules: BTreeMap<String, RegistryRules> =
            ["*", "r.example", "r.example/os", "r.example/os/slim", "r.example:5000"]
                .map(|rule| (rule.to_owned(), RegistryRules { signed_by: Vec::new() }))
                .into();
        for (repository, rule) in [
            ("r.example/os/slim", "r.example/os/slim"),
            ("r.example/os/slim-2", "r.example/os"),
            ("r.example/osx/a", "r.example"),
            ("r.example:5000/a", "r.example:5000"),
            ("r.example.org/a", "*"),
            ("docker.io/library/debian", "*"),
        ] {
            assert_eq!(rule_for(&rules, repository).unwrap().0, rule, "{repository}");
        }
        let some = [("r.example".to_owned(), RegistryRules { signed_by: Vec::new() })].into();
        assert!(rule_for(&some, "other.example/a").is_none());
    }
}
