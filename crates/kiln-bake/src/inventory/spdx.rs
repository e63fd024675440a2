//! An inventory as SPDX 2.3.
//!
//! Source: the SPDX specification 2.3 and its JSON schema.

use std::collections::BTreeMap;

use kiln_model::Digest;
use serde_json::{Map, Value, json};

use super::{Ecosystem, Omission, Package};
use crate::hashing::sha256;
use crate::oci::{canonical, canonical_with};

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-image";

/// What SPDX says where nothing is known.
const UNKNOWN: &str = "NOASSERTION";

/// What a document says of the software, whatever image it is of.
#[derive(Debug)]
pub(super) struct Body {
    /// The packages as they are written, each with a comma before it.
    packages: Vec<u8>,
    /// How they are related, as it is written.
    relationships: Vec<u8>,
    /// Licences that SPDX has no name for.
    licences: Vec<Value>,
    comment: Option<String>,
}

impl Body {
    pub(super) fn of(software: &[Package], omissions: &[Omission]) -> Self {
        let mut packages = Vec::new();
        let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", IMAGE)];
        let mut references: BTreeMap<&str, &str> = BTreeMap::new();
        for one in software {
            let id = id(one);
            relationships.push(relationship(IMAGE, "CONTAINS", &id));
            packages.push(b',');
            packages.extend(canonical(&package(one, &id)));
            let own = one.licence.iter().flat_map(|licence| &licence.references);
            references.extend(own.map(|(id, words)| (id.as_str(), words.as_str())));
        }
        let licences = references
            .into_iter()
            .map(|(id, words)| json!({ "extractedText": words, "licenseId": id, "name": words }))
            .collect();
        let lines = omissions.iter().map(|omission| format!("{}: {}", omission.path, omission.reason));
        let comment = format!("Not read:\n{}", lines.collect::<Vec<_>>().join("\n"));
        Self {
            packages,
            relationships: canonical(&Value::Array(relationships)),
            licences,
            comment: (!omissions.is_empty()).then_some(comment),
        }
    }

    /// Writes the document of an image.
    pub(super) fn document(&self, image: &Digest, created: &str) -> Vec<u8> {
        let mut document = json!({
            "SPDXID": DOCUMENT,
            "creationInfo": {
                "created": created,
                "creators": [format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"))],
            },
            "dataLicense": "CC0-1.0",
            // The place that SPDX has for documents of which nobody serves a copy. Another Kiln may see more in the same image.
            "documentNamespace": format!(
                "https://spdx.org/spdxdocs/kiln-{}-{}", env!("CARGO_PKG_VERSION"), image.hex()
            ),
            "name": image.to_string(),
            "packages": null,
            "relationships": null,
            "spdxVersion": "SPDX-2.3",
        });
        if !self.licences.is_empty() {
            document["hasExtractedLicensingInfos"] = json!(self.licences);
        }
        if let Some(comment) = &self.comment {
            document["comment"] = json!(comment);
        }
        let packages = [b"[", &canonical(&package_of(image))[..], &self.packages, b"]"].concat();
        canonical_with(&document, &[(&["packages"], &packages), (&["relationships"], &self.relationships)])
    }
}

/// The image as a package, which all others are in.
fn package_of(image: &Digest) -> Value {
    json!({
        "SPDXID": IMAGE,
        "checksums": [{ "algorithm": "SHA256", "checksumValue": image.hex() }],
        "copyrightText": UNKNOWN,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "name": image.to_string(),
        "primaryPackagePurpose": "CONTAINER",
        "supplier": UNKNOWN,
        "versionInfo": image.to_string(),
    })
}

fn package(package: &Package, id: &str) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.into(), value));
    put("SPDXID", json!(id));
    put("copyrightText", json!(UNKNOWN));
    put("downloadLocation", json!(UNKNOWN));
    put("filesAnalyzed", json!(false));
    put("licenseConcluded", json!(UNKNOWN));
    let declared = package.licence.as_ref().map_or(UNKNOWN, |licence| &licence.expression);
    put("licenseDeclared", json!(declared));
    put("name", json!(package.name));
    // It may be a person or a team: Debian's maintainers are both.
    let supplier = package.supplier.as_ref().map(|name| format!("Organization: {name}"));
    put("supplier", json!(supplier.as_deref().unwrap_or(UNKNOWN)));
    if !package.version.is_empty() {
        put("versionInfo", json!(package.version));
    }
    if let Some(purl) = &package.purl {
        put(
            "externalRefs",
            json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceLocator": purl,
                "referenceType": "purl",
            }]),
        );
    }
    let source =
        package.source.as_ref().map(|source| format!("built from {} {}", source.name, source.version));
    let paths: Vec<String> = package.found.iter().map(ToString::to_string).collect();
    let found = format!("found in {}", paths.join(", "));
    put("sourceInfo", json!(source.into_iter().chain([found]).collect::<Vec<_>>().join("; ")));
    let purpose = if package.ecosystem == Ecosystem::Debian { "INSTALL" } else { "LIBRARY" };
    put("primaryPackagePurpose", json!(purpose));
    Value::Object(map)
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "relatedSpdxElement": to, "relationshipType": kind, "spdxElementId": from })
}

/// Identifiers have letters, digits, dots and dashes only, so what was changed is told apart by a digest.
fn id(package: &Package) -> String {
    let plain: String = package
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .take(64)
        .collect();
    let mark = sha256(package.reference().as_bytes()).hex();
    format!("SPDXRef-{}-{plain}-{}", package.ecosystem.as_str(), &mark[..16])
}
