//! Cargo, called from a program that cargo itself started.

use std::process::Command;

use crate::metadata;

/// What cargo tells the program that it runs about that program's own package.
///
/// Handed on, it would look like a change to every build script that asks to be run again for it (ring's does), and each
/// call from here would build again what a call from a shell has built already.
const ABOUT_US: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// Returns cargo, ready for arguments, as a shell in the workspace's root would start it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(metadata::root());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ABOUT_US.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// Returns where cargo puts what it builds.
pub(crate) fn target() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| metadata::root().join("target"), Into::into)
}
