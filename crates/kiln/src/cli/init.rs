//! `kiln init`

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use kiln_model::StackName;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};

/// Write a small working stack into this folder
///
/// Writes stack.hcl with one service that serves a page, commented. Never overwrites: a folder that holds an .hcl file
/// is left as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mkdir hello && cd hello && kiln init && kiln up")]
pub(super) struct Args {
    /// The stack's name; by default the folder's
    name: Option<StackName>,
}

/// Two files: the stack, and the page that it serves.
const STACK: &str = include_str!("init/stack.hcl");
const PAGE: &str = include_str!("init/index.html");

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let folder = context.folder()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&folder),
    };
    if let Some(found) = first_hcl(&folder)? {
        return Err(Failure::refused(format!("{found} is here already"))
            .hint("`kiln init` starts an empty folder; `kiln check` looks at what is there"));
    }
    write_new(&folder, "stack.hcl", &STACK.replace("STACK_NAME", name.as_str()))?;
    write_new(&folder, "site/index.html", PAGE)?;
    if context.screen.json() {
        context.screen.answer(&json!({ "stack": name.as_str(), "files": ["stack.hcl", "site/index.html"] }));
    } else {
        context.screen.line(&format!("Wrote stack.hcl and site/index.html: the stack `{name}`."));
        context.screen.line("Next: `kiln check`, then `kiln up` as root.");
    }
    Ok(Exit::Done)
}

/// The folder's name with what a stack's name may not hold left out.
fn name_of(folder: &Path) -> StackName {
    let text = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let text: String = text.chars().map(allowed).take(kiln_model::name::NAME_BYTES_MAX).collect();
    StackName::new(text.trim_matches('-'))
        .unwrap_or_else(|_| StackName::new("hello").expect("a plain word is a stack's name"))
}

fn first_hcl(folder: &Path) -> Result<Option<String>, Failure> {
    let failed = |error| Failure::external(format!("cannot read {}", folder.display())).cause(error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".hcl") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn write_new(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    let write = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(text.as_bytes())
    };
    write().map_err(|error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::refused(format!("{name} is here already")),
        _ => Failure::external(format!("cannot write {}", path.display())).cause(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folders_name_becomes_a_valid_stack_name() {
        for (folder, name) in
            [("/x/My Shop", "my-shop"), ("/", "hello"), ("/x/---", "hello"), ("/x/a.b", "a-b")]
        {
            assert_eq!(name_of(Path::new(folder)).as_str(), name);
        }
    }
}
