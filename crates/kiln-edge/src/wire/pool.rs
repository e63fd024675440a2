//! A pool of the table: its backends, and how requests are sorted and counted.

use std::sync::Arc;

use hyper::header::HeaderName;
use kiln_model::ask::Method;
use kiln_model::route::{
    Aim, Backend, Group, HeaderMatch, Mirror, Pool, PoolKey, Sampling, Sticky, Synthetic,
};
use kiln_model::{Millis, RevisionNumber, RolloutId, Weight};
use serde::{Deserialize, Serialize};

use super::{PoolKeyWire, WireError, wrong};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolWire {
    key: PoolKeyWire,
    backends: Vec<BackendWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sampling: Option<SamplingWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sticky: Option<StickyWire>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aim: Vec<AimWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<MirrorWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    synthetic: Option<SyntheticWire>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SyntheticWire {
    method: String,
    path: String,
    host: String,
    port: String,
    rate: u32,
    count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct MirrorWire {
    share: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
enum StickyWire {
    Cookie { name: String, max_age_ms: u64 },
    Header { name: String },
    Address,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AimWire {
    header: String,
    value: HeaderMatchWire,
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeaderMatchWire {
    Exact(String),
    Prefix(String),
    Present,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct SamplingWire {
    rollout: u64,
    window: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BackendWire {
    instance: String,
    revision: u64,
    address: String,
    weight: u16,
    /// None means stable, as in the tables of before there were groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

impl From<(&PoolKey, &Pool)> for PoolWire {
    fn from((key, pool): (&PoolKey, &Pool)) -> Self {
        let backend = |backend: &Backend| BackendWire {
            instance: backend.instance.to_string(),
            revision: backend.revision.0,
            address: backend.address.to_string(),
            weight: backend.weight.per_mille(),
            group: (backend.group != Group::Stable).then(|| backend.group.to_string()),
        };
        Self {
            key: key.into(),
            backends: pool.backends.iter().map(backend).collect(),
            sampling: pool.sampling.map(Into::into),
            sticky: pool.sticky.as_ref().map(Into::into),
            aim: pool.aim.iter().map(Into::into).collect(),
            mirror: pool.mirror.map(|mirror| MirrorWire { share: mirror.share.per_mille() }),
            synthetic: pool.synthetic.as_deref().map(Into::into),
        }
    }
}

impl From<&Synthetic> for SyntheticWire {
    fn from(synthetic: &Synthetic) -> Self {
        let Synthetic { method, path, host, port, rate, count } = synthetic;
        let (method, path, host) = (method.word().to_owned(), path.clone(), host.clone());
        Self { method, path, host, port: port.to_string(), rate: *rate, count: *count }
    }
}

impl SyntheticWire {
    fn into_model(self) -> Result<Synthetic, WireError> {
        let Self { method, path, host, port, rate, count } = self;
        let safe = Method::of_word(&method).filter(|method| *method != Method::Post);
        let method = safe.ok_or_else(|| WireError(format!("`{method}` is not asked without a client")))?;
        Ok(Synthetic { method, path, host, port: port.parse().map_err(wrong)?, rate, count })
    }
}

impl From<Sampling> for SamplingWire {
    fn from(sampling: Sampling) -> Self {
        Self { rollout: sampling.rollout.0, window: sampling.window }
    }
}

impl From<SamplingWire> for Sampling {
    fn from(sampling: SamplingWire) -> Self {
        Self { rollout: RolloutId(sampling.rollout), window: sampling.window }
    }
}

impl From<&Sticky> for StickyWire {
    fn from(sticky: &Sticky) -> Self {
        match sticky {
            Sticky::Cookie { name, max_age } => Self::Cookie { name: name.clone(), max_age_ms: max_age.0 },
            Sticky::Header { name } => Self::Header { name: name.clone() },
            Sticky::Address => Self::Address,
        }
    }
}

impl StickyWire {
    fn into_model(self) -> Result<Sticky, WireError> {
        Ok(match self {
            // A cookie's name is a token, as a header's is (RFC 6265 §4.1.1).
            Self::Cookie { name, max_age_ms } => {
                Sticky::Cookie { name: token(name)?, max_age: Millis(max_age_ms) }
            }
            Self::Header { name } => Sticky::Header { name: token(name)? },
            Self::Address => Sticky::Address,
        })
    }
}

impl From<&Aim> for AimWire {
    fn from(aim: &Aim) -> Self {
        let value = match &aim.value {
            HeaderMatch::Exact(text) => HeaderMatchWire::Exact(text.clone()),
            HeaderMatch::Prefix(text) => HeaderMatchWire::Prefix(text.clone()),
            HeaderMatch::Present => HeaderMatchWire::Present,
        };
        Self { header: aim.header.clone(), value, group: aim.group.to_string() }
    }
}

impl AimWire {
    fn into_model(self) -> Result<Aim, WireError> {
        let value = match self.value {
            HeaderMatchWire::Exact(text) => HeaderMatch::Exact(text),
            HeaderMatchWire::Prefix(text) => HeaderMatch::Prefix(text),
            HeaderMatchWire::Present => HeaderMatch::Present,
        };
        Ok(Aim { header: token(self.header)?, value, group: self.group.parse().map_err(wrong)? })
    }
}

/// Checks the name of a header or of a cookie.
fn token(name: String) -> Result<String, WireError> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(name),
        Err(_) => Err(WireError(format!("`{name}` is not the name of a header or a cookie"))),
    }
}

impl PoolWire {
    pub(super) fn into_model(self) -> Result<(PoolKey, Pool), WireError> {
        let backends = self.backends.into_iter().map(BackendWire::into_model).collect::<Result<_, _>>()?;
        let sampling = self.sampling.map(Into::into);
        let sticky = self.sticky.map(StickyWire::into_model).transpose()?;
        let aim = self.aim.into_iter().map(AimWire::into_model).collect::<Result<_, _>>()?;
        let mirror = self.mirror.map(|mirror| Ok(Mirror { share: weight(mirror.share)? })).transpose()?;
        let synthetic = self.synthetic.map(SyntheticWire::into_model).transpose()?.map(Arc::new);
        Ok((self.key.into_model()?, Pool { backends, sampling, sticky, aim, mirror, synthetic }))
    }
}

impl BackendWire {
    fn into_model(self) -> Result<Backend, WireError> {
        Ok(Backend {
            instance: self.instance.parse().map_err(wrong)?,
            revision: RevisionNumber(self.revision),
            address: self.address.parse().map_err(wrong)?,
            weight: weight(self.weight)?,
            group: self.group.map_or(Ok(Group::Stable), |group| group.parse().map_err(wrong))?,
        })
    }
}

fn weight(per_mille: u16) -> Result<Weight, WireError> {
    Weight::new(per_mille).ok_or_else(|| WireError(format!("the weight {per_mille} is above 1000")))
}
