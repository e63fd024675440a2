//! What is wanted of images of registries.

use std::collections::BTreeMap;

use kiln_model::stack::RegistryRules;

use super::instances;
use crate::diagnostic::Problem;
use crate::reader::{Context, Reader};

/// How a public key in PEM begins. What is in it is read by whoever checks a signature.
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";

pub(super) fn registries(context: &Context<'_>) -> BTreeMap<String, RegistryRules> {
    let mut out = BTreeMap::new();
    for registry in instances(context, "registry") {
        if !is_beginning_of_a_name(&registry.name) {
            let message = format!("`{}` begins no name of an image in a registry", registry.name);
            let help = "write a host as in `from`, and perhaps a part of the path: \"docker.io/library\"; or \"*\" for all";
            context.report(Problem::new("invalid-name", registry.declared.name_span, message).help(help));
        }
        if let Some(rules) = registry.read(context, |reader| rules(reader.sealed())).0 {
            out.insert(registry.name.to_string(), rules);
        }
    }
    out
}

fn is_beginning_of_a_name(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    let mut parts = text.split('/');
    let is_host = parts.next().is_some_and(|host| host == "localhost" || host.contains(['.', ':']));
    text == "*" || is_host && text.split('/').all(|part| !part.is_empty() && part.bytes().all(good))
}

fn rules(reader: Reader<'_>) -> Option<RegistryRules> {
    let signed_by = reader.strings("signed_by")?;
    let wrong = |message: String| {
        let help = "read one from a file of the stack folder: `signed_by = [file(\"keys/release.pub\")]`";
        reader.report(Problem::new("wrong-value", reader.span("signed_by"), message).help(help));
    };
    if signed_by.is_empty() {
        wrong(format!("`signed_by` of {} names no key, so no image would do", reader.owner));
    }
    for text in signed_by.iter().filter(|text| !text.trim_start().starts_with(PEM_BEGIN)) {
        let shown: String = text.chars().take(40).collect();
        wrong(format!(
            "`signed_by` of {}: \"{}\" is no public key in PEM",
            reader.owner,
            shown.escape_debug()
        ));
    }
    Some(RegistryRules { signed_by })
}
