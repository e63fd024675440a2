//! Licences, duplicates by an allow list with reasons, and one TLS provider.

use std::collections::BTreeMap;

use crate::metadata::{self, Package};

/// Licences that ask for no more than their text; MPL-2.0 is file-level copyleft and stays out.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
    "bzip2-1.0.6",
];

/// Crates that must not come in, and why.
const BANNED: &[(&str, &str)] = &[
    ("aws-lc-rs", "ring is the one TLS provider; two make rustls panic at run time"),
    ("aws-lc-sys", "it needs cmake, and ring is the one TLS provider"),
    ("openssl", "it needs library headers"),
    ("openssl-sys", "it needs library headers"),
    ("native-tls", "it links the machine's TLS library"),
    ("prost-build", "it needs protoc"),
    ("bindgen", "it needs clang"),
];

/// Crates that occur in two versions, and why that is borne.
const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "pgp and ureq differ by one minor version"),
    ("block-buffer", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("const-oid", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("cpufeatures", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("crypto-common", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("digest", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("getrandom", "rand_core 0.6 of pgp's RSA asks for the older one"),
    ("rand", "pgp's RSA signs with rand 0.8"),
    ("rand_core", "pgp's RSA signs with rand 0.8"),
    ("serdect", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("sha1", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("sha2", "pgp 0.21 is on the older RustCrypto generation, sha2 0.11 on the newer: size only"),
    ("syn", "derive macros move to syn 3 one by one; it is not in the binary"),
];

pub(crate) fn run() -> Result<(), String> {
    let packages = metadata::packages()?;
    let mut faults = licence_faults(&packages);
    faults.extend(banned_faults(&packages));
    faults.extend(duplicate_faults(&packages));
    if faults.is_empty() {
        println!("deps: {} packages, licences fine, one TLS provider", packages.len());
        return Ok(());
    }
    Err(format!("dependency check failed:\n  {}", faults.join("\n  ")))
}

fn licence_faults(packages: &[Package]) -> Vec<String> {
    let outside = packages.iter().filter(|package| !package.is_member);
    outside
        .filter(|package| !is_permissive(package.license.as_deref()))
        .map(|package| {
            let licence = package.license.as_deref().unwrap_or("no licence");
            format!(
                "{} {}: {licence} is not on the list of licences in xtask/src/deps.rs",
                package.name, package.version
            )
        })
        .collect()
}

fn is_permissive(licence: Option<&str>) -> bool {
    // Old manifests write `MIT/Apache-2.0`.
    let Some(text) = licence.map(|licence| licence.replace('/', " OR ")) else { return false };
    let Ok(expression) = spdx::Expression::parse(&text) else { return false };
    expression.evaluate(|requirement| LICENCES.contains(&requirement.to_string().as_str()))
}

fn banned_faults(packages: &[Package]) -> Vec<String> {
    let found = |name: &str| packages.iter().any(|package| package.name == name);
    BANNED
        .iter()
        .filter(|(name, _)| found(name))
        .map(|(name, why)| format!("{name} is banned: {why}"))
        .collect()
}

fn duplicate_faults(packages: &[Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let twice = |name: &str| versions.get(name).is_some_and(|found| found.len() > 1);
    let mut faults: Vec<String> = versions
        .iter()
        .filter(|(name, found)| found.len() > 1 && !DUPLICATES.iter().any(|(allowed, _)| allowed == *name))
        .map(|(name, found)| format!("{name} occurs {} times: {}", found.len(), found.join(", ")))
        .collect();
    let stale = DUPLICATES.iter().filter(|(name, _)| !twice(name));
    faults.extend(stale.map(|(name, _)| format!("{name} no longer occurs twice: take it off the list")));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_with_one_permissive_licence_is_permissive() {
        assert!(is_permissive(Some("MIT/Apache-2.0")));
        assert!(is_permissive(Some("GPL-3.0-only OR MIT")));
        assert!(is_permissive(Some("Apache-2.0 WITH LLVM-exception OR MIT")));
    }

    #[test]
    fn copyleft_and_unknown_licences_are_not() {
        assert!(!is_permissive(Some("GPL-3.0-only")));
        assert!(!is_permissive(Some("MIT AND MPL-2.0")));
        assert!(!is_permissive(None));
    }
}
