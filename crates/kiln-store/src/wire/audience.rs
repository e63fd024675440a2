//! Which requests a canary gets, beside its share of all.

use kiln_model::Millis;
use kiln_model::route::{Aim, Group, HeaderMatch, Mirror, Sticky};
use kiln_model::service::Audience;
use serde::{Deserialize, Serialize};

use super::canary::PerMille;

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AudienceWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sticky: Option<StickyWire>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aim: Vec<AimWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<PerMille>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StickyWire {
    Cookie { name: String, max_age_ms: u64 },
    Header { name: String },
    Address,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AimWire {
    header: String,
    value: HeaderMatchWire,
    group: GroupWire,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeaderMatchWire {
    Exact(String),
    Prefix(String),
    Present,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GroupWire {
    Stable,
    Baseline,
    Canary,
}

impl AudienceWire {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&Audience> for AudienceWire {
    fn from(Audience { sticky, aim, mirror }: &Audience) -> Self {
        Self {
            sticky: sticky.as_ref().map(StickyWire::from),
            aim: aim.iter().map(AimWire::from).collect(),
            mirror: mirror.map(|mirror| PerMille(mirror.share)),
        }
    }
}

impl From<AudienceWire> for Audience {
    fn from(AudienceWire { sticky, aim, mirror }: AudienceWire) -> Self {
        Self {
            sticky: sticky.map(Sticky::from),
            aim: aim.into_iter().map(Aim::from).collect(),
            mirror: mirror.map(|share| Mirror { share: share.0 }),
        }
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

impl From<StickyWire> for Sticky {
    fn from(wire: StickyWire) -> Self {
        match wire {
            StickyWire::Cookie { name, max_age_ms } => Self::Cookie { name, max_age: Millis(max_age_ms) },
            StickyWire::Header { name } => Self::Header { name },
            StickyWire::Address => Self::Address,
        }
    }
}

impl From<&Aim> for AimWire {
    fn from(aim: &Aim) -> Self {
        let value = match &aim.value {
            HeaderMatch::Exact(text) => HeaderMatchWire::Exact(text.clone()),
            HeaderMatch::Prefix(text) => HeaderMatchWire::Prefix(text.clone()),
            HeaderMatch::Present => HeaderMatchWire::Present,
        };
        let group = match aim.group {
            Group::Stable => GroupWire::Stable,
            Group::Baseline => GroupWire::Baseline,
            Group::Canary => GroupWire::Canary,
        };
        Self { header: aim.header.clone(), value, group }
    }
}

impl From<AimWire> for Aim {
    fn from(AimWire { header, value, group }: AimWire) -> Self {
        let value = match value {
            HeaderMatchWire::Exact(text) => HeaderMatch::Exact(text),
            HeaderMatchWire::Prefix(text) => HeaderMatch::Prefix(text),
            HeaderMatchWire::Present => HeaderMatch::Present,
        };
        let group = match group {
            GroupWire::Stable => Group::Stable,
            GroupWire::Baseline => Group::Baseline,
            GroupWire::Canary => Group::Canary,
        };
        Self { header, value, group }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::Weight;

    use super::*;

    fn bytes(audience: &Audience) -> String {
        serde_json::to_string(&AudienceWire::from(audience)).unwrap()
    }

    fn read(text: &str) -> Audience {
        serde_json::from_str::<AudienceWire>(text).unwrap().into()
    }

    #[test]
    fn the_bytes_of_an_audience_are_stable() {
        let aim = |value, group| Aim { header: "x-v".into(), value, group };
        let audience = Audience {
            sticky: Some(Sticky::Cookie { name: "k".into(), max_age: Millis(9000) }),
            aim: vec![
                aim(HeaderMatch::Exact("a".into()), Group::Canary),
                aim(HeaderMatch::Prefix("b".into()), Group::Stable),
                aim(HeaderMatch::Present, Group::Baseline),
            ],
            mirror: Some(Mirror { share: Weight::new(100).unwrap() }),
        };
        let golden = concat!(
            r#"{"sticky":{"cookie":{"name":"k","max_age_ms":9000}},"aim":["#,
            r#"{"header":"x-v","value":{"exact":"a"},"group":"canary"},"#,
            r#"{"header":"x-v","value":{"prefix":"b"},"group":"stable"},"#,
            r#"{"header":"x-v","value":"present","group":"baseline"}],"mirror":100}"#,
        );
        assert_eq!(bytes(&audience), golden);
        assert_eq!(read(golden), audience);
        for (sticky, text) in [
            (Sticky::Header { name: "h".into() }, r#"{"sticky":{"header":{"name":"h"}}}"#),
            (Sticky::Address, r#"{"sticky":"address"}"#),
        ] {
            let audience = Audience { sticky: Some(sticky), ..Audience::default() };
            assert_eq!(bytes(&audience), text);
            assert_eq!(read(text), audience);
        }
        assert_eq!(bytes(&Audience::default()), "{}");
        assert!(serde_json::from_str::<AudienceWire>(r#"{"mirror":1001}"#).is_err());
    }
}
