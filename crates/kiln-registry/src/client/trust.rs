//! How a registry's host is spoken to, by the files that Docker and podman keep about it: authorities of its own, or no TLS.
//!
//! Source: `containers-certs.d(5)`, and `insecure-registries` of Docker's `daemon.json`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A daemon's settings are written by hand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Authorities of one host; who trusts more of them has a bundle.
const AUTHORITIES_MAX: usize = 100;

/// Settings of this machine can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be used", path.display())]
pub struct TrustError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// What the files say of one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// It may be spoken to without TLS.
    pub(super) insecure: bool,
    /// Files of authorities that are trusted for it.
    pub(super) authorities: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DaemonWire {
    #[serde(default)]
    insecure_registries: BTreeSet<String>,
}

/// Where such settings are: the user's before the machine's. Each folder may have a `certs.d` and a `daemon.json`.
pub fn folders() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| home.map(|home| home.join(".config")));
    let own = config.into_iter().flat_map(|config| ["containers", "docker"].map(|name| config.join(name)));
    own.chain(["/etc/containers", "/etc/docker"].map(PathBuf::from)).collect()
}

impl Trust {
    /// Looks for a host, as it stands in an image's name, in these folders. The first that has authorities for it counts.
    pub(super) fn find(folders: &[PathBuf], host: &str) -> Result<Self, TrustError> {
        let mut trust = Self::default();
        for folder in folders {
            if trust.authorities.is_empty() {
                trust.authorities = authorities(&folder.join("certs.d").join(host))?;
            }
            trust.insecure |= daemon(&folder.join("daemon.json"))?.insecure_registries.contains(host);
        }
        Ok(trust)
    }
}

fn authorities(folder: &Path) -> Result<Vec<PathBuf>, TrustError> {
    let failed = |source| TrustError { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries.take(AUTHORITIES_MAX) {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn daemon(path: &Path) -> Result<DaemonWire, TrustError> {
    let failed = |source| TrustError { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)) {
        Err(error) if is_absent(&error) => Ok(DaemonWire::default()),
        Err(error) => Err(failed(error)),
        // A file that says nothing is as good as none: Docker takes it so.
        Ok(_) if bytes.trim_ascii().is_empty() => Ok(DaemonWire::default()),
        Ok(_) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
    }
}

/// Another user's settings are none of ours.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_by_its_whole_name() {
        let place = tempfile::tempdir().unwrap();
        let (own, machine) = (place.path().join("own"), place.path().join("machine"));
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(own.join("certs.d/r.example.org:5000/ca.crt"), "x");
        write(own.join("certs.d/r.example.org:5000/client.key"), "x");
        write(machine.join("certs.d/r.example.org:5000/other.crt"), "x");
        write(machine.join("certs.d/r.example.org/ca.crt"), "x");
        write(machine.join("daemon.json"), r#"{"debug":true,"insecure-registries":["10.0.0.7:5000"]}"#);
        write(own.join("daemon.json"), "\n");
        let folders = [own.clone(), machine.clone(), place.path().join("none")];
        let find = |host: &str| Trust::find(&folders, host).unwrap();
        let first = own.join("certs.d/r.example.org:5000/ca.crt");
        assert_eq!(find("r.example.org:5000"), Trust { insecure: false, authorities: vec![first] });
        let without_port = machine.join("certs.d/r.example.org/ca.crt");
        assert_eq!(find("r.example.org").authorities, [without_port]);
        assert_eq!(find("10.0.0.7:5000"), Trust { insecure: true, authorities: Vec::new() });
        assert_eq!(find("10.0.0.7"), Trust::default());
        write(machine.join("daemon.json"), "{");
        let error = Trust::find(&folders, "10.0.0.7").unwrap_err();
        assert!(error.path.ends_with("machine/daemon.json"), "{error}");
    }
}
