//! The certificate and the key that a registry shows.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::limits::PEM_BYTES_MAX;

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate and those that lead from it to a known authority, in PEM.
    pub certificates: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// TLS can't be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{} can't be read", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file holds no PEM of what it should.
    #[error("{} holds no {what} in PEM", path.display())]
    Pem {
        /// Which one.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The key is not the certificate's, or of a kind that is not known.
    #[error("certificate and key can't be used together")]
    Pair(#[source] rustls::Error),
}

/// Reads what a registry shows.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let pem = |path: &Path, what| TlsError::Pem { path: path.to_owned(), what };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&files.certificates)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| pem(&files.certificates, "certificate"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|_| pem(&files.key, "private key"))?;
    // Named, not the process's: another crate could have chosen another one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|source| TlsError::Io { path: path.to_owned(), source })?;
    Ok(bytes)
}
