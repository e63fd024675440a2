//! Files below the stack folder. What they hold becomes part of the release.

use super::encode::to_base64;
use super::{Args, Failure, Function, Run, row};
use crate::files::{FileError, inside};
use crate::value::{STRING_BYTES_MAX, Value};

/// More files than this in a set are a wrong glob.
const FILES_MAX: usize = 100_000;

pub(super) static ROWS: &[Function] = &[
    row(
        "file",
        "file(path)",
        (1, 1),
        Run::Whole(file),
        "The text of a file below the stack folder.",
        "file(\"motd.txt\")",
        "\"hello\\n\"",
    ),
    row(
        "filebase64",
        "filebase64(path)",
        (1, 1),
        Run::Whole(filebase64),
        "A file as base64.",
        "filebase64(\"motd.txt\")",
        "\"aGVsbG8K\"",
    ),
    row(
        "fileexists",
        "fileexists(path)",
        (1, 1),
        Run::Whole(fileexists),
        "Whether there is such a file.",
        "fileexists(\"missing.txt\")",
        "false",
    ),
    row(
        "fileset",
        "fileset(folder, glob)",
        (2, 2),
        Run::Whole(fileset),
        "The files below a folder that match, relative to it; `*`, `**`, `?`, `[…]` and `{a,b}` as in `copy`.",
        "fileset(\".\", \"*.txt\")",
        "toset([\"motd.txt\"])",
    ),
    row(
        "templatefile",
        "templatefile(path, variables)",
        (2, 2),
        Run::Marks(templatefile),
        "A file with `${…}` and `%{…}` filled in.",
        "templatefile(\"greet.tpl\", { name = \"Ada\" })",
        "\"Hello Ada\\n\"",
    ),
    row(
        "templatestring",
        "templatestring(template, variables)",
        (2, 2),
        Run::Marks(templatestring),
        "A string with `${…}` and `%{…}` filled in.",
        "templatestring(\"Hi $${name}\", { name = \"Ada\" })",
        "\"Hi Ada\"",
    ),
];

/// Checks that a path stays in the stack folder.
fn path(args: &Args<'_>, i: usize) -> Result<String, Failure> {
    let text = args.str(i)?;
    match inside(&text) {
        Some(path) => Ok(path),
        None => args.bad(i, format!("\"{text}\" leaves the stack folder; paths are relative to it")),
    }
}

/// Reads a file.
pub(super) fn content(args: &Args<'_>, i: usize) -> Result<Vec<u8>, Failure> {
    let path = path(args, i)?;
    match args.eval.files.read(&path) {
        Ok(bytes) if bytes.len() > STRING_BYTES_MAX => {
            args.bad(i, format!("{path} has more than {} MiB", STRING_BYTES_MAX >> 20))
        }
        Ok(bytes) => {
            args.spend(1 + bytes.len() / 64)?;
            Ok(bytes)
        }
        Err(FileError::NotFound) => args.bad(i, format!("there is no file {path} in the stack folder")),
        Err(error) => args.bad(i, format!("{path} can't be read: {error}")),
    }
}

fn text_of(args: &Args<'_>, i: usize) -> Result<String, Failure> {
    match String::from_utf8(content(args, i)?) {
        Ok(text) => Ok(text),
        Err(_) => args.bad(i, "the file is not UTF-8 text; `filebase64` reads any file"),
    }
}

fn file(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(text_of(args, 0)?))
}

fn filebase64(args: &Args<'_>) -> Result<Value, Failure> {
    args.text(to_base64(&content(args, 0)?))
}

fn fileexists(args: &Args<'_>) -> Result<Value, Failure> {
    let path = path(args, 0)?;
    match args.eval.files.read(&path) {
        Ok(_) | Err(FileError::TooLarge { .. }) => Ok(Value::bool(true)),
        Err(FileError::NotFound) => Ok(Value::bool(false)),
        Err(error) => args.bad(0, format!("{path} can't be read: {error}")),
    }
}

fn fileset(args: &Args<'_>) -> Result<Value, Failure> {
    let (folder, glob) = (path(args, 0)?, args.str(1)?);
    if inside(&glob).is_none() {
        return args.bad(1, format!("\"{glob}\" leaves the stack folder"));
    }
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let found = args.eval.files.list(&format!("{prefix}{glob}"));
    let found = found.map_err(|e| Failure::Argument(1, format!("\"{glob}\" can't be listed: {e}")))?;
    if found.len() > FILES_MAX {
        return args.bad(1, format!("more than {FILES_MAX} files match"));
    }
    args.spend(found.len())?;
    let relative = found.iter().map(|f| f.strip_prefix(&prefix).unwrap_or(f));
    Ok(Value::set(relative.map(Value::string).collect())?)
}

fn variables<'a>(args: &Args<'a>) -> Result<&'a Value, Failure> {
    let variables = args.get(1);
    if variables.as_map().is_none() {
        return args.bad(1, format!("expected an object of variables, found {}", variables.describe()));
    }
    Ok(variables)
}

fn templatefile(args: &Args<'_>) -> Result<Value, Failure> {
    let text = text_of(args, 0)?;
    let what = format!("template {}", path(args, 0)?);
    let rendered = args.eval.render(&text, variables(args)?, args.span, &what)?;
    Ok(rendered.marked(&args.get(0).marks))
}

fn templatestring(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    let rendered = args.eval.render(&text, variables(args)?, args.span, "the template")?;
    Ok(rendered.marked(&args.get(0).marks))
}
