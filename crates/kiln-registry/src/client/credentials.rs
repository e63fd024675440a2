//! Users and passwords from Docker's own file: `config.json`, in plain text or from a helper.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::base64;

/// The file holds some lines for each registry.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A helper answers with a user and a secret; tokens of clouds have some KB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What a helper says where it knows nothing: the one text that Docker's own helpers share.
const NOT_FOUND: &str = "credentials not found";

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// What is exchanged for tokens.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A secret is in no log and no error.
        f.write_str("Credentials")
    }
}

/// Docker's file, or a helper that it names, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file can't be read.
    #[error("{} can't be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not what Docker writes.
    #[error("{} is not a file of Docker's credentials: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why not. Says nothing of what is in it.
        reason: &'static str,
    },
    /// A helper failed.
    #[error("{helper}, which {} names, failed: {reason}", path.display())]
    Helper {
        /// Its program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileWire {
    #[serde(default)]
    auths: BTreeMap<String, AuthWire>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct AuthWire {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// What all entries of a file mean; no helper is asked.
#[cfg(test)]
pub(super) fn pairs(bytes: &[u8]) -> Option<Vec<Result<bool, &'static str>>> {
    let file: FileWire = serde_json::from_slice(bytes).ok()?;
    Some(file.auths.values().map(|auth| read(auth).map(|found| found.is_some())).collect())
}

/// Returns where Docker's file is: in `DOCKER_CONFIG`, else in `~/.docker`.
pub fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

/// Finds what to show to a registry; none where the file, or the registry in it, is missing.
///
/// # Errors
/// See [`CredentialsError`].
pub fn find(path: &Path, host: &str) -> Result<Option<Credentials>, CredentialsError> {
    let malformed = |reason| CredentialsError::Malformed { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CredentialsError::Io { path: path.to_owned(), source }),
        Ok(_) => {}
    }
    let file: FileWire =
        serde_json::from_slice(&bytes).map_err(|_| malformed("it is not JSON of its form"))?;
    let names = names(host);
    if let Some(helper) = names.iter().find_map(|name| file.cred_helpers.get(name)) {
        return ask(helper, &names[0], path);
    }
    let entry = file.auths.iter().find(|(name, _)| names.contains(&bare(name)));
    if let Some((_, auth)) = entry
        && let Some(found) = read(auth).map_err(malformed)?
    {
        return Ok(Some(found));
    }
    match &file.creds_store {
        Some(helper) => ask(helper, &names[0], path),
        None => Ok(None),
    }
}

/// The names under which Docker keeps a registry.
fn names(host: &str) -> Vec<String> {
    if host == "docker.io" {
        return ["https://index.docker.io/v1/", "index.docker.io", "docker.io"].map(str::to_owned).into();
    }
    vec![host.to_owned()]
}

/// A key of `auths` may be an address, of which the host counts.
fn bare(name: &str) -> String {
    let rest = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    rest.split('/').next().unwrap_or_default().to_owned()
}

fn read(auth: &AuthWire) -> Result<Option<Credentials>, &'static str> {
    if let Some(token) = auth.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::Identity(token.clone())));
    }
    if let Some(encoded) = auth.auth.as_ref().filter(|text| !text.is_empty()) {
        let pair = base64::decode(encoded).and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.ok_or("an `auth` is not base64")?;
        // Some tools end the password with NULs.
        let (user, password) = pair.split_once(':').ok_or("an `auth` is not a user and a password")?;
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Some(Credentials::Basic { user: user.to_owned(), password }));
    }
    Ok(match (&auth.username, &auth.password) {
        (Some(user), Some(password)) => {
            Some(Credentials::Basic { user: user.clone(), password: password.clone() })
        }
        _ => None,
    })
}

/// Runs `docker-credential-NAME get`, which reads a registry's name and answers in JSON.
fn ask(helper: &str, name: &str, path: &Path) -> Result<Option<Credentials>, CredentialsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct AnswerWire {
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let failed =
        |reason: String| CredentialsError::Helper { helper: program.clone(), path: path.to_owned(), reason };
    // A name with a slash would be a path.
    if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(failed("it is not a program's name".into()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut said = Vec::new();
    // A helper that reads nothing has its answer all the same.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(name.as_bytes()));
    let stdout = child.stdout.take().map(|stdout| stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut said));
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    stdout.transpose().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let text: String = String::from_utf8_lossy(&said).trim().chars().take(300).collect();
        return if text.contains(NOT_FOUND) { Ok(None) } else { Err(failed(format!("{status}: {text}"))) };
    }
    let answer: AnswerWire =
        serde_json::from_slice(&said).map_err(|_| failed("it did not answer as helpers do".into()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Basic { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str) -> Result<Option<Credentials>, CredentialsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        find(&path, host)
    }

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { user: user.into(), password: password.into() })
    }

    #[test]
    fn dockers_file_is_read() {
        let text = r#"{ "auths": {
            "r.example.org": { "auth": "YW5uOmE6Yg==" },
            "https://index.docker.io/v1/": { "auth": "Ym9iOmM=" },
            "t.example.org": { "identitytoken": "token" },
            "e.example.org": {} } }"#;
        assert!(found(text, "r.example.org").unwrap() == basic("ann", "a:b"));
        assert!(found(text, "docker.io").unwrap() == basic("bob", "c"));
        assert!(found(text, "t.example.org").unwrap() == Some(Credentials::Identity("token".into())));
        for host in ["e.example.org", "other.example.org", "r.example.org:5000"] {
            assert!(found(text, host).unwrap().is_none(), "{host}");
        }
        assert!(find(Path::new("/nonexistent/config.json"), "a").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_with_it_is_said_without_its_secrets() {
        for text in
            ["{", r#"{"auths":{"h.x":{"auth":"c2VjcmV0"}}}"#, r#"{"auths":{"h.x":{"auth":"%secret"}}}"#]
        {
            let error = found(text, "h.x").unwrap_err().to_string();
            assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
        }
        let helper = r#"{"credHelpers":{"h.x":"../../bin/sh"}}"#;
        assert!(matches!(found(helper, "h.x"), Err(CredentialsError::Helper { .. })));
        let missing = r#"{"credsStore":"kiln-test-no-such-helper"}"#;
        assert!(found(missing, "h.x").unwrap_err().to_string().contains("docker-credential-kiln-test"));
    }
}
