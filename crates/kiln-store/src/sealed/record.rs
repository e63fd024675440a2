//! A sealed value as it is stored.

use kiln_model::{SecretName, StackName};
use serde::{Deserialize, Serialize};

use crate::wire::{Hex, Text, to_json};

pub(super) struct Record {
    pub(super) stack: StackName,
    pub(super) name: SecretName,
    /// The keyed MAC under which the value is found.
    pub(super) mac: String,
    pub(super) sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum RecordFormat {
    #[serde(rename = "kiln.sealed/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordWire {
    format: RecordFormat,
    stack: Text<StackName>,
    name: Text<SecretName>,
    mac: Hex,
    sealed: Hex,
}

impl Record {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mac = Hex::parse(&self.mac).expect("a MAC is written in hexadecimal digits");
        to_json(&RecordWire {
            format: RecordFormat::V1,
            stack: Text(self.stack.clone()),
            name: Text(self.name.clone()),
            mac,
            sealed: Hex(self.sealed.clone()),
        })
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let wire: RecordWire = serde_json::from_slice(bytes).ok()?;
        let RecordFormat::V1 = wire.format;
        Some(Self {
            stack: wire.stack.0,
            name: wire.name.0,
            mac: wire.mac.to_string(),
            sealed: wire.sealed.0,
        })
    }
}

/// What a value is sealed together with: it opens for no other secret, and under no other version.
pub(super) fn context(stack: &StackName, name: &SecretName, version: &str) -> Vec<u8> {
    // None of the three can hold a slash.
    format!("kiln.sealed/1/{stack}/{name}/{version}").into_bytes()
}
