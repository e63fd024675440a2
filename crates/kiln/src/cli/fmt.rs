//! `kiln fmt`

use std::fs;
use std::path::{Path, PathBuf};

use kiln_config::SourceSet;
use serde_json::json;

use super::context::Context;
use super::deploy::folder;
use super::deploy::load::scan_failure;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::screen::Paint;

/// Lay out the stack's files
///
/// Rewrites each .hcl file of this folder, or the named ones, and keeps every comment. Prints the names of the files that
/// changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln fmt --check")]
pub(super) struct Args {
    /// Files; by default every .hcl file of this folder
    files: Vec<PathBuf>,
    /// Change nothing; exit with 1 if a file would change
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let mut changed = Vec::new();
    let mut reports = Vec::new();
    for (name, bytes) in files(args, context)? {
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::refused(format!("{name} is not UTF-8")).hint("`kiln check` shows where"))?;
        match kiln_config::fmt(&text) {
            Ok(laid_out) if laid_out == text => {}
            Ok(laid_out) => {
                if !args.check {
                    replace(Path::new(&name), &laid_out)?;
                }
                changed.push(name);
            }
            Err(mut diagnostic) => {
                // The formatter knows a text, not its name.
                for label in &mut diagnostic.labels {
                    label.file = name.clone();
                }
                let texts: SourceSet = [(name, text)].into_iter().collect();
                reports.push(diagnostic.render(&texts, context.screen.err_paint() != Paint::PLAIN));
            }
        }
    }
    if context.screen.json() {
        context.screen.answer(&json!({ "changed": changed, "check": args.check }));
    } else {
        for name in &changed {
            context.screen.line(name);
        }
    }
    if !reports.is_empty() {
        let errors = reports.len();
        return Err(Failure::diagnostics(reports.join("\n"), errors));
    }
    Ok(if args.check && !changed.is_empty() { Exit::Failed } else { Exit::Done })
}

fn files(args: &Args, context: &Context<'_>) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    if args.files.is_empty() {
        let sources = folder::sources(&context.folder()?).map_err(|error| scan_failure(&error))?;
        return Ok(sources.into_iter().collect());
    }
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        let bytes =
            fs::read(path).map_err(|error| Failure::usage(format!("{name} can't be read")).cause(error))?;
        Ok((name, bytes))
    };
    args.files.iter().map(read).collect()
}

/// Renames a whole new file over the old one, so that a crash leaves one of the two.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let new = path.with_extension("hcl.new");
    let write = || {
        fs::write(&new, text)?;
        fs::set_permissions(&new, fs::metadata(path)?.permissions())?;
        fs::rename(&new, path)
    };
    write().map_err(|error| {
        // What is left of an attempt that failed is of no use.
        let _ = fs::remove_file(&new);
        Failure::external(format!("{} can't be written", path.display())).cause(error)
    })
}
