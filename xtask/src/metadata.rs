//! `cargo metadata`, as far as the checks need it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cargo::cargo;

/// One package of the dependency graph.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) is_member: bool,
    /// Dependencies by name that are neither dev nor build.
    pub(crate) dependencies: BTreeSet<String>,
}

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// All packages that a build on this machine can contain.
pub(crate) fn packages() -> Result<Vec<Package>, String> {
    let output = cargo()
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let json: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let members: BTreeSet<&str> = strings(&json["workspace_members"]).collect();
    let resolved: BTreeMap<&str, &Value> =
        array(&json["resolve"]["nodes"]).filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    Ok(array(&json["packages"])
        .filter(|package| package["id"].as_str().is_some_and(|id| resolved.contains_key(id)))
        .map(|package| parse(package, &members))
        .collect())
}

fn parse(package: &Value, members: &BTreeSet<&str>) -> Package {
    let text = |key: &str| package[key].as_str().map(str::to_owned);
    let normal = array(&package["dependencies"]).filter(|dependency| dependency["kind"].is_null());
    Package {
        name: text("name").unwrap_or_default(),
        version: text("version").unwrap_or_default(),
        license: text("license"),
        is_member: package["id"].as_str().is_some_and(|id| members.contains(id)),
        dependencies: normal
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect(),
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    array(value).filter_map(Value::as_str)
}
