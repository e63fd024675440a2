//! A stack as it was captured: resolved again without a look at its folder.

use std::collections::BTreeMap;

use kiln_bake::{LOCK_FILE, Lock};
use kiln_config::{RawOrigin, RawValue};
use kiln_model::release::Release;
use kiln_model::{Digest, EnvName, VariableName};
use kiln_store::Store;

use super::folder::{Content, Listing};
use super::load::{self, Found};
use super::lockfile;
use super::snapshot::{self, CapturedFiles};
use crate::cli::failure::Failure;

/// What a snapshot holds of a stack.
pub(crate) struct Captured {
    /// Its files.
    pub listing: Listing,
    /// Its lock, if it has one.
    pub lock: Option<Lock>,
    /// Its `.hcl` files.
    texts: Vec<(String, Vec<u8>)>,
}

impl Captured {
    /// Reads a snapshot. A file of it that can't be read is left out.
    ///
    /// # Errors
    /// The snapshot is gone or damaged.
    pub(crate) fn load(store: &Store, source: &Digest) -> Result<Self, kiln_store::ReadError> {
        let listing = snapshot::listing(&store.snapshots, source)?;
        let read = |path: &[u8]| match listing.get(path).map(|item| &item.content) {
            Some(Content::File { digest, .. }) => store.blobs.read_verified(digest).ok(),
            _ => None,
        };
        let lock = read(LOCK_FILE.as_bytes())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| lockfile::parse(&text).ok());
        let texts = listing
            .keys()
            .filter(|path| path.ends_with(b".hcl") && !path.contains(&b'/') && !path.starts_with(b"."))
            .filter_map(|path| Some((String::from_utf8(path.clone()).ok()?, read(path)?)))
            .collect();
        Ok(Self { listing, lock, texts })
    }

    /// Resolves it for an environment.
    pub(crate) fn resolve(
        self: &Captured,
        store: &Store,
        env: &EnvName,
        variables: BTreeMap<String, RawValue>,
    ) -> Found {
        let files = CapturedFiles { listing: &self.listing, blobs: &store.blobs };
        load::resolve(self.texts.clone(), &files, env, variables, self.lock.as_ref())
    }
}

/// The variables that a release is resolved with in another environment: what fills its holes comes from outside, and what no
/// environment decides is as it was sealed.
///
/// # Errors
/// A flag is about what the release has decided, or a sensitive value, which is not kept, is missing.
pub(crate) fn variables(
    release: &Release,
    flags: &[(String, String)],
) -> Result<BTreeMap<String, RawValue>, Failure> {
    let mut variables = load::variables(flags);
    let is_open = |name: &str| {
        let is_hidden = release.given.iter().any(|(given, value)| given.as_str() == name && value.is_none());
        is_hidden || release.holes.keys().any(|hole| hole.as_str() == name)
    };
    if let Some((name, _)) = flags.iter().find(|(name, _)| !is_open(name)) {
        return Err(Failure::refused(format!("variable {name} is sealed in the release"))
            .cause("only variables with scope = \"environment\" differ between environments")
            .hint(format!("leave out `--var {name}=…`, or make another release with `kiln up`")));
    }
    variables.retain(|name, _| is_open(name));
    let sealed = |(name, value): (&VariableName, &Option<String>)| {
        let raw = RawValue { text: value.clone()?, origin: RawOrigin::Release };
        Some((name.to_string(), raw))
    };
    variables.extend(release.given.iter().filter_map(sealed));
    let hidden = release.given.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name);
    if let Some(name) = hidden.into_iter().find(|name| !variables.contains_key(name.as_str())) {
        return Err(Failure::refused(format!("variable {name} is sensitive, and its value is not kept"))
            .hint(format!("give it again: `--var {name}=…`, or KILN_VAR_{name}")));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use kiln_model::StackName;

    use super::*;

    fn release() -> Release {
        let name = |name: &str| VariableName::new(name).unwrap();
        Release {
            stack: StackName::new("shop").unwrap(),
            source: Digest::new([1; 32]),
            images: BTreeMap::new(),
            holes: BTreeMap::from([(name("replicas"), "number".into())]),
            given: BTreeMap::from([(name("colour"), Some("\"red\"".into())), (name("pin"), None)]),
            checks: Vec::new(),
        }
    }

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_release_is_resolved_with_what_was_sealed_and_with_what_fills_its_holes() {
        let given = flags(&[("replicas", "3"), ("pin", "1234")]);
        let variables = variables(&release(), &given).unwrap_or_else(|_| panic!("all is given"));
        let origin = |name: &str| (variables[name].text.as_str(), variables[name].origin);
        assert_eq!(origin("replicas"), ("3", RawOrigin::Flag));
        assert_eq!(origin("pin"), ("1234", RawOrigin::Flag));
        assert_eq!(origin("colour"), ("\"red\"", RawOrigin::Release));
    }

    #[test]
    fn what_a_release_decided_is_not_decided_again_and_what_it_does_not_keep_is_asked_for() {
        let refused = |pairs| variables(&release(), &flags(pairs)).unwrap_err().json();
        let sealed = refused(&[("colour", "blue"), ("pin", "1234")]);
        assert!(sealed.contains("variable colour is sealed"), "{sealed}");
        let hidden = refused(&[("replicas", "3")]);
        assert!(hidden.contains("variable pin is sensitive") && hidden.contains("KILN_VAR_pin"), "{hidden}");
    }
}
