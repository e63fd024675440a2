//! `kiln registry`

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;

use kiln_registry::server::{Server, Settings, StartError, TlsFiles};
use kiln_registry::storage::OpenStorageError;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};

/// Serve images to other machines
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln registry serve --root /srv/registry")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run a registry
    ///
    /// A registry of the OCI distribution specification, in the foreground, until SIGTERM or Ctrl-C. Needs nothing of Kiln's
    /// state, and no root.
    #[command(
        after_help = "Example:\n  kiln registry serve --root /srv/registry\n  kiln registry serve --root /srv/registry \
                      --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem --htpasswd users"
    )]
    Serve(Serve),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// The folder of its images
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Let in only the users of this file, which `htpasswd -B` writes
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Speak TLS with this certificate chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

pub(super) fn run(args: Args, context: &mut Context<'_>) -> Outcome {
    let Verb::Serve(serve) = args.verb;
    self::serve(serve, context)
}

fn serve(args: Serve, context: &mut Context<'_>) -> Outcome {
    let tls = args.tls_cert.zip(args.tls_key).map(|(certificates, key)| TlsFiles { certificates, key });
    let scheme = if tls.is_some() { "https" } else { "http" };
    let is_open = scheme == "http" && !args.listen.ip().is_loopback();
    let sends_passwords = is_open && args.htpasswd.is_some();
    let settings = Settings { listen: args.listen, root: args.root, htpasswd: args.htpasswd, tls };
    let _ = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // A line that can't be written must not end the thread that has it.
        .log_internal_errors(false)
        .try_init();
    let server = Server::start(&settings).map_err(|error| start_failure(&error))?;
    let address = server.address();
    if sends_passwords {
        tracing::warn!("passwords are sent unencrypted: use --tls-cert, or a proxy with TLS in front");
    }
    if context.screen.json() {
        context
            .screen
            .record(&json!({ "listen": address.to_string(), "url": format!("{scheme}://{address}") }));
    } else {
        context.screen.line(&format!("serving {} on {scheme}://{address}", settings.root.display()));
    }
    server.run();
    Ok(Exit::Done)
}

fn start_failure(error: &StartError) -> Failure {
    let failure = match error {
        StartError::Listen { source, .. } => {
            let hint = match source.kind() {
                io::ErrorKind::AddrInUse => "end what listens there, or choose another with --listen",
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are root's; choose another with --listen"
                }
                io::ErrorKind::AddrNotAvailable => "--listen takes an address of this machine, or 0.0.0.0",
                _ => "choose another with --listen",
            };
            Failure::external("the registry can't listen").hint(hint)
        }
        StartError::Storage(OpenStorageError::Taken { .. }) => {
            Failure::refused("the registry runs already").hint("choose another folder with --root")
        }
        StartError::Storage(OpenStorageError::Format { .. }) => {
            Failure::refused("the registry's folder can't be used").hint("choose another folder with --root")
        }
        StartError::Storage(_) => Failure::external("the registry's folder can't be used"),
        StartError::Htpasswd { .. } => Failure::external("the registry does not know its users"),
        StartError::Tls(_) => Failure::external("the registry has no certificate to show"),
        StartError::Process(_) => Failure::external("the registry can't serve"),
    };
    failure.caused_by(error)
}
