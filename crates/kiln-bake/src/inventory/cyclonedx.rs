//! An inventory as CycloneDX 1.6.
//!
//! Source: the CycloneDX specification 1.6 (ECMA-424) and its JSON schema.

use kiln_model::Digest;
use serde_json::{Map, Value, json};

use super::{Omission, Package, System};
use crate::oci::{canonical, canonical_with};

/// What the properties of ours begin with.
const PREFIX: &str = "kiln:";

/// What a document says of the software, whatever image it is of.
#[derive(Debug)]
pub(super) struct Body {
    /// As they are written.
    components: Vec<u8>,
    omissions: Vec<Value>,
}

impl Body {
    pub(super) fn of(system: Option<&System>, software: &[Package], omissions: &[Omission]) -> Self {
        let not_read = |it: &Omission| property("not-read", &format!("{}: {}", it.path, it.reason));
        let components: Vec<Value> =
            system.map(os).into_iter().chain(software.iter().map(component)).collect();
        Self {
            components: canonical(&Value::Array(components)),
            omissions: omissions.iter().map(not_read).collect(),
        }
    }

    /// Writes the document of an image.
    pub(super) fn document(&self, image: &Digest, created: &str) -> Vec<u8> {
        let name = image.to_string();
        let mut metadata = json!({
            "component": {
                "bom-ref": name,
                "hashes": [{ "alg": "SHA-256", "content": image.hex() }],
                "name": name,
                "type": "container",
                "version": name,
            },
            "timestamp": created,
            "tools": {
                "components": [{ "name": "kiln", "type": "application", "version": env!("CARGO_PKG_VERSION") }],
            },
        });
        if !self.omissions.is_empty() {
            metadata["properties"] = json!(self.omissions);
        }
        let document = json!({
            "bomFormat": "CycloneDX",
            "components": null,
            "metadata": metadata,
            "serialNumber": serial(image),
            "specVersion": "1.6",
            "version": 1,
        });
        canonical_with(&document, &[(&["components"], &self.components)])
    }
}

fn os(system: &System) -> Value {
    let mut component = json!({ "bom-ref": "os", "name": system.id, "type": "operating-system" });
    if !system.version.is_empty() {
        component["version"] = json!(system.version);
    }
    component
}

/// A UUID of version 8 (RFC 9562, section 5.8) from the image's digest: no other document has it, and this one always has it.
fn serial(image: &Digest) -> String {
    let mut bytes: [u8; 16] = image.as_bytes()[..16].try_into().expect("a digest has 32 bytes");
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("urn:uuid:{}", parts.join("-"))
}

fn component(package: &Package) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.into(), value));
    put("bom-ref", json!(package.reference()));
    put("name", json!(package.name));
    put("type", json!("library"));
    if !package.version.is_empty() {
        put("version", json!(package.version));
    }
    if let Some(purl) = &package.purl {
        put("purl", json!(purl));
    }
    if let Some(supplier) = &package.supplier {
        put("supplier", json!({ "name": supplier }));
    }
    if let Some(licence) = &package.licence {
        put("licenses", json!([{ "expression": licence.expression }]));
    }
    let mut properties: Vec<Value> =
        package.found.iter().map(|path| property("found", &path.to_string())).collect();
    if let Some(source) = &package.source {
        properties.push(property("source", &format!("{} {}", source.name, source.version)));
    }
    let references = package.licence.iter().flat_map(|licence| &licence.references);
    properties.extend(references.map(|(id, words)| property(&format!("licence:{id}"), words)));
    put("properties", Value::Array(properties));
    Value::Object(map)
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": format!("{PREFIX}{name}"), "value": value })
}
