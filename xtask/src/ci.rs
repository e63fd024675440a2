//! What CI runs, in the order that fails fastest.

use crate::{cargo, deps, fuzz, tidy};

pub(crate) fn run() -> Result<(), String> {
    tidy::run()?;
    call(&["fmt", "--all", "--check"], &[])?;
    deps::run()?;
    call(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])?;
    call(
        &["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"],
        &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")],
    )?;
    test(&[])?;
    fuzz::ci()
}

/// Runs the tests side by side, where nextest is installed; `arguments` go to it.
pub(crate) fn test(arguments: &[String]) -> Result<(), String> {
    // The end-to-end tests run the real binary, which nextest builds only for the package that owns it.
    call(&["build", "--workspace", "--bins", "--locked"], &[])?;
    let mut words = vec!["nextest", "run", "--workspace", "--locked"];
    words.extend(arguments.iter().map(String::as_str));
    match call(&["nextest", "--version"], &[]) {
        Ok(()) => call(&words, &[])?,
        Err(_) => call(&["test", "--workspace", "--locked", "--bins", "--lib", "--tests"], &[])?,
    }
    call(&["test", "--workspace", "--doc", "--locked", "--quiet"], &[])
}

fn call(words: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    println!("\n> cargo {}", words.join(" "));
    let status = cargo::cargo()
        .args(words)
        .envs(env.iter().copied())
        .status()
        .map_err(|error| format!("cannot run cargo {}: {error}", words[0]))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", words[0])) }
}
