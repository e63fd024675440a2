//! An inventory as CycloneDX 1.6.
//!
//! Source: the CycloneDX specification 1.6 (ECMA-424) and its JSON schema.

use serde_json::{Map, Value, json};

use super::{Inventory, Package};

/// What the properties of ours begin with.
const PREFIX: &str = "kiln:";

/// Returns the document.
pub(super) fn document(inventory: &Inventory) -> Value {
    let image = inventory.image.to_string();
    let mut components: Vec<Value> = inventory
        .system
        .iter()
        .map(|system| {
            let mut component = json!({ "bom-ref": "os", "name": system.id, "type": "operating-system" });
            if !system.version.is_empty() {
                component["version"] = json!(system.version);
            }
            component
        })
        .collect();
    components.extend(inventory.packages.iter().map(component));
    let omissions: Vec<Value> = inventory
        .omissions
        .iter()
        .map(|omission| property("not-read", &format!("{}: {}", omission.path, omission.reason)))
        .collect();
    let mut metadata = json!({
        "component": {
            "bom-ref": image,
            "hashes": [{ "alg": "SHA-256", "content": inventory.image.hex() }],
            "name": image,
            "type": "container",
            "version": image,
        },
        "timestamp": inventory.created,
        "tools": {
            "components": [{ "name": "kiln", "type": "application", "version": env!("CARGO_PKG_VERSION") }],
        },
    });
    if !omissions.is_empty() {
        metadata["properties"] = Value::Array(omissions);
    }
    json!({
        "bomFormat": "CycloneDX",
        "components": components,
        "metadata": metadata,
        "serialNumber": serial(inventory),
        "specVersion": "1.6",
        "version": 1,
    })
}

/// A UUID of version 8 (RFC 9562, section 5.8) from the image's digest: no other document has it, and this one always has it.
fn serial(inventory: &Inventory) -> String {
    let mut bytes: [u8; 16] = inventory.image.as_bytes()[..16].try_into().expect("a digest has 32 bytes");
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
