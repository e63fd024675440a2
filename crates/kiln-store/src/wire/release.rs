//! Releases and bindings: blobs whose digests identify them.

use std::collections::BTreeMap;

use kiln_model::release::{Binding, Release, RequiredCheck};
use kiln_model::{Digest, ImageName, StackName, VariableName};
use serde::{Deserialize, Serialize};

use super::Text;

/// Names the format within the bytes, so that a blob of another kind is never taken for it.
#[derive(Serialize, Deserialize)]
enum ReleaseFormat {
    #[serde(rename = "kiln.release/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseWire {
    format: ReleaseFormat,
    stack: Text<StackName>,
    source: Text<Digest>,
    images: BTreeMap<Text<ImageName>, Text<Digest>>,
    holes: BTreeMap<Text<VariableName>, String>,
    checks: Vec<CheckWire>,
    /// Left out where there are none, so that a release of before keeps its digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    given: BTreeMap<Text<VariableName>, Option<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckWire {
    image: Text<Digest>,
    test: String,
}

/// As [`ReleaseFormat`].
#[derive(Serialize, Deserialize)]
enum BindingFormat {
    #[serde(rename = "kiln.binding/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingWire {
    format: BindingFormat,
    variables: BTreeMap<Text<VariableName>, String>,
    secrets: BTreeMap<String, String>,
}

impl From<&Release> for ReleaseWire {
    fn from(release: &Release) -> Self {
        let mut checks: Vec<_> = release.checks.iter().collect();
        // A set in meaning: the order in which a stack declares its tests is no difference.
        checks.sort();
        checks.dedup();
        Self {
            format: ReleaseFormat::V1,
            stack: Text(release.stack.clone()),
            source: Text(release.source),
            images: release.images.iter().map(|(name, it)| (Text(name.clone()), Text(*it))).collect(),
            holes: release.holes.iter().map(|(name, it)| (Text(name.clone()), it.clone())).collect(),
            checks: checks
                .into_iter()
                .map(|it| CheckWire { image: Text(it.image), test: it.test.clone() })
                .collect(),
            given: release.given.iter().map(|(name, it)| (Text(name.clone()), it.clone())).collect(),
        }
    }
}

impl From<ReleaseWire> for Release {
    fn from(wire: ReleaseWire) -> Self {
        let ReleaseFormat::V1 = wire.format;
        Self {
            stack: wire.stack.0,
            source: wire.source.0,
            images: wire.images.into_iter().map(|(name, it)| (name.0, it.0)).collect(),
            holes: wire.holes.into_iter().map(|(name, it)| (name.0, it)).collect(),
            given: wire.given.into_iter().map(|(name, it)| (name.0, it)).collect(),
            checks: wire
                .checks
                .into_iter()
                .map(|it| RequiredCheck { image: it.image.0, test: it.test })
                .collect(),
        }
    }
}

impl From<&Binding> for BindingWire {
    fn from(binding: &Binding) -> Self {
        Self {
            format: BindingFormat::V1,
            variables: binding.variables.iter().map(|(name, it)| (Text(name.clone()), it.clone())).collect(),
            secrets: binding.secrets.clone(),
        }
    }
}

impl From<BindingWire> for Binding {
    fn from(wire: BindingWire) -> Self {
        let BindingFormat::V1 = wire.format;
        Self {
            variables: wire.variables.into_iter().map(|(name, it)| (name.0, it)).collect(),
            secrets: wire.secrets,
        }
    }
}
