//! What CI runs, in the order that fails fastest.

use std::process::Command;

use crate::{deps, metadata, tidy};

pub(crate) fn run() -> Result<(), String> {
    tidy::run()?;
    cargo(&["fmt", "--all", "--check"], &[])?;
    deps::run()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])?;
    cargo(
        &["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"],
        &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")],
    )?;
    test(&[])
}

/// Runs the tests side by side, where nextest is installed; `arguments` go to it.
pub(crate) fn test(arguments: &[String]) -> Result<(), String> {
    // The end-to-end tests run the real binary, which nextest builds only for the package that owns it.
    cargo(&["build", "--workspace", "--bins", "--locked"], &[])?;
    let mut words = vec!["nextest", "run", "--workspace", "--locked"];
    words.extend(arguments.iter().map(String::as_str));
    match cargo(&["nextest", "--version"], &[]) {
        Ok(()) => cargo(&words, &[])?,
        Err(_) => cargo(&["test", "--workspace", "--locked", "--bins", "--lib", "--tests"], &[])?,
    }
    cargo(&["test", "--workspace", "--doc", "--locked", "--quiet"], &[])
}

fn cargo(words: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    println!("\n> cargo {}", words.join(" "));
    let status = Command::new(env!("CARGO"))
        .args(words)
        .envs(env.iter().copied())
        .current_dir(metadata::root())
        .status()
        .map_err(|error| format!("cannot run cargo {}: {error}", words[0]))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", words[0])) }
}
