//! Reading an archive's index: signature, dates, hashes.

use std::io::Read;

use kiln_model::Digest;

use super::ARCH;
use super::keyring::{Keyring, SignatureProblem};
use super::mirror::Archive;
use super::release::Release;
use crate::calendar::{self, DAY_SECS};
use crate::fetch::{FetchError, Fetcher};
use crate::hashing::sha256;

/// Debian's has 150 KB.
const RELEASE_BYTES_MAX: u64 = 16 << 20;

/// Debian's main has 50 MB unpacked; the signed index says how much it is, but its signer need not own this machine.
const PACKAGES_BYTES_MAX: u64 = 1 << 30;

/// Clocks differ; an index from further ahead means that one of them is wrong.
const FUTURE_SECS_MAX: u64 = DAY_SECS;

/// Why an archive's index can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A part of it did not come.
    #[error("cannot fetch the index of {suite}")]
    Fetch {
        /// The suite.
        suite: String,
        /// The cause.
        #[source]
        source: FetchError,
    },
    /// Its signature does not hold.
    #[error("the index {url} {problem}")]
    Signature {
        /// The index.
        url: String,
        /// What is wrong with the signature.
        problem: SignatureProblem,
        /// The keyring that was asked.
        keyring: std::path::PathBuf,
    },
    /// It is of another suite.
    #[error("the index {url} is that of `{found}`, not of `{suite}`")]
    WrongSuite {
        /// The index.
        url: String,
        /// What was asked for.
        suite: String,
        /// What came.
        found: String,
    },
    /// It is too old to be believed.
    #[error("the index {url} expired on {valid_until}")]
    Expired {
        /// The index.
        url: String,
        /// When.
        valid_until: String,
    },
    /// It is from the future.
    #[error("the index {url} is from {date}, which is in the future")]
    Future {
        /// The index.
        url: String,
        /// From when.
        date: String,
    },
    /// It lacks a component for this architecture.
    #[error("{suite} has no component `{component}` for {arch}; it has {known}")]
    NoComponent {
        /// The suite.
        suite: String,
        /// What the recipe wants.
        component: String,
        /// The architecture.
        arch: &'static str,
        /// What there is.
        known: String,
    },
    /// It is signed, but malformed.
    #[error("{url} is malformed: {reason}")]
    Malformed {
        /// The file.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// An index that was verified.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The suite, as it was asked for.
    pub(crate) suite: String,
    /// When it was made, in seconds since the epoch.
    pub(crate) released: u64,
    /// The digest of the signed text.
    pub(crate) digest: Digest,
    /// The `Packages` of the wanted components, one after another.
    pub(crate) packages: String,
}

/// Fetches and verifies an archive's index.
///
/// Returns nothing where the archive is not required and the mirror says that it has none.
pub(crate) fn open(
    fetcher: &Fetcher,
    archive: &Archive,
    components: &[String],
    keyring: &Keyring,
    now: u64,
) -> Result<Option<Opened>, ArchiveError> {
    let Archive { suite, root, required } = archive;
    let fetch_failed = |source| ArchiveError::Fetch { suite: suite.clone(), source };
    let url = format!("{root}/dists/{suite}/InRelease");
    let bytes = match fetcher.get(&url, RELEASE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(FetchError::Missing { .. }) if !required => return Ok(None),
        Err(error) => return Err(fetch_failed(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let signed = keyring.verify(&text, now).map_err(|problem| ArchiveError::Signature {
        url: url.clone(),
        problem,
        keyring: keyring.path().into(),
    })?;
    let malformed = |reason: &str| ArchiveError::Malformed { url: url.clone(), reason: reason.into() };
    let release = Release::parse(&signed).ok_or_else(|| malformed("it lacks a date or the list of files"))?;
    check(&release, suite, &url, now)?;
    let mut packages = String::new();
    for component in components {
        let text = read_packages(fetcher, archive, &release, component)?;
        packages.push_str(&text);
        packages.push_str("\n\n");
    }
    let digest = sha256(signed.as_bytes());
    Ok(Some(Opened { suite: suite.clone(), released: release.date, digest, packages }))
}

fn check(release: &Release, suite: &str, url: &str, now: u64) -> Result<(), ArchiveError> {
    let url = url.to_owned();
    if !release.is_of(suite) {
        return Err(ArchiveError::WrongSuite { url, suite: suite.into(), found: release.codename.clone() });
    }
    if release.date > now + FUTURE_SECS_MAX {
        return Err(ArchiveError::Future { url, date: calendar::iso(release.date) });
    }
    match release.valid_until {
        Some(until) if until < now => Err(ArchiveError::Expired { url, valid_until: calendar::iso(until) }),
        _ => Ok(()),
    }
}

fn read_packages(
    fetcher: &Fetcher,
    archive: &Archive,
    release: &Release,
    component: &str,
) -> Result<String, ArchiveError> {
    let Archive { suite, root, .. } = archive;
    let plain = format!("{component}/binary-{ARCH}/Packages");
    let found = [".xz", ".gz", ""].iter().find_map(|extension| {
        let path = format!("{plain}{extension}");
        release.files.get(&path).map(|(size, digest)| (path, *extension, *size, *digest))
    });
    let Some((path, extension, size, digest)) = found else {
        return Err(ArchiveError::NoComponent {
            suite: suite.clone(),
            component: component.into(),
            arch: ARCH,
            known: release.components.clone(),
        });
    };
    let folder = format!("{root}/dists/{suite}");
    let url = format!("{folder}/{path}");
    let malformed = |reason: String| ArchiveError::Malformed { url: url.clone(), reason };
    if size > PACKAGES_BYTES_MAX {
        return Err(malformed(format!("{size} bytes are too many")));
    }
    let by_hash = format!("{folder}/{component}/binary-{ARCH}/by-hash/SHA256/{}", digest.hex());
    // By hash first: while a mirror is being updated the plain name may already belong to the next index.
    let named = || fetcher.get_verified(&url, size, &digest);
    let bytes = match release.by_hash {
        true => match fetcher.get_verified(&by_hash, size, &digest) {
            Err(FetchError::Missing { .. }) => named(),
            other => other,
        },
        false => named(),
    };
    let bytes = bytes.map_err(|source| ArchiveError::Fetch { suite: suite.clone(), source })?;
    let limit = release.files.get(&plain).map_or(PACKAGES_BYTES_MAX, |(size, _)| *size);
    let text = decompress(&bytes, extension, limit.min(PACKAGES_BYTES_MAX)).map_err(malformed)?;
    Ok(text)
}

fn decompress(bytes: &[u8], extension: &str, limit: u64) -> Result<String, String> {
    let reader: Box<dyn Read + '_> = match extension {
        ".xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(bytes)),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        _ => Box::new(bytes),
    };
    let mut text = Vec::new();
    reader.take(limit + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > limit {
        return Err(format!("it unpacks to more than {limit} bytes"));
    }
    // Descriptions of old packages hold stray bytes; names and relations are ASCII.
    Ok(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
