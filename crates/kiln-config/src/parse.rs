//! Text to syntax tree. A syntax error costs the block that it is in, not the file: all errors are found at once.

use std::ops::Range;

use crate::diagnostic::{Problem, Problems};
use crate::lex::{LexError, Token, TokenKind, lex};
use crate::lower::Lowering;
use crate::source::{FileId, Flaw, SOURCE_BYTES_MAX, SourceFile, Span};
use crate::syntax::{Body, Expr, Part};

/// hcl-edit compares every key of an object with every other, so a hostile object would take minutes.
const OBJECT_ITEMS_MAX: usize = 5_000;

/// hcl-edit refuses 64 levels; brackets alone must not get it there through recursion that is not counted.
const BRACKETS_MAX: usize = 100;

/// A file of more errors than this is not HCL; the rest would bury the first.
const SYNTAX_ERRORS_MAX: usize = 20;

/// Parses a file. What could be parsed is returned beside the problems.
pub(crate) fn parse_file(id: FileId, file: &SourceFile) -> (Body, Problems) {
    if let Some(flaw) = file.flaw {
        return (Body::default(), vec![flaw_problem(id, flaw)]);
    }
    let (tokens, errors) = lex(&file.text);
    if let Some(problem) = too_large(id, &tokens, &file.text) {
        return (Body::default(), vec![problem]);
    }
    let lowering = Lowering::new(id, &file.text, 0);
    if errors.is_empty() {
        match hcl_edit::parser::parse_body(&file.text) {
            Ok(body) => return lowering.file(&body),
            Err(error) if error.location().offset() >= file.text.len() && file.text.is_empty() => {
                return (Body::default(), Vec::new());
            }
            Err(_) => {}
        }
    }
    let mut problems: Problems = errors.iter().map(|e| lex_problem(id, e)).collect();
    let mut body = Body::default();
    for chunk in chunks(&tokens, &file.text) {
        parse_chunk(id, &file.text, chunk, &errors, &mut body, &mut problems);
    }
    if problems.is_empty() {
        // The parts are fine and the whole is not: two blocks on one line, say.
        if let Err(error) = hcl_edit::parser::parse_body(&file.text) {
            problems.push(syntax_problem(id, &file.text, 0..file.text.len(), &error));
        }
    }
    problems.truncate(SYNTAX_ERRORS_MAX);
    (body, problems)
}

fn parse_chunk(
    id: FileId,
    text: &str,
    chunk: Range<usize>,
    errors: &[LexError],
    body: &mut Body,
    problems: &mut Problems,
) {
    // What is not closed was already reported; what follows from it would only confuse.
    if errors.iter().any(|e| chunk.contains(&e.range.start)) {
        return;
    }
    let part = &text[chunk.clone()];
    match hcl_edit::parser::parse_body(part) {
        Ok(parsed) => {
            let (lowered, more) = Lowering::new(id, part, chunk.start).file(&parsed);
            body.attributes.extend(lowered.attributes);
            body.blocks.extend(lowered.blocks);
            problems.extend(more);
        }
        Err(error) => problems.push(syntax_problem(id, text, chunk, &error)),
    }
}

/// Parses the text of a variable, as in `-var 'list=["a"]'`.
///
/// # Errors
/// What is wrong with it, in words: there is no file to point into.
pub(crate) fn parse_expression(text: &str) -> Result<Expr, String> {
    check_text(text)?;
    let parsed = hcl_edit::parser::parse_expr(text.trim()).map_err(|e| e.message().to_owned())?;
    let (expr, problems) = Lowering::new(FileId::NONE, text.trim(), 0).expression(&parsed);
    match problems.into_iter().next() {
        Some(problem) => Err(problem.message),
        None => Ok(expr),
    }
}

/// Parses the text of a template file.
///
/// # Errors
/// What is wrong with it, in words, with the line.
pub(crate) fn parse_template(text: &str) -> Result<Vec<Part>, String> {
    if text.len() > SOURCE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", SOURCE_BYTES_MAX >> 20));
    }
    let parsed = hcl_edit::parser::parse_template(text)
        .map_err(|e| format!("line {}: {}", e.location().line(), e.message()))?;
    let (parts, problems) = Lowering::new(FileId::NONE, text, 0).template(&parsed);
    match problems.into_iter().next() {
        Some(problem) => Err(problem.message),
        None => Ok(parts),
    }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > SOURCE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", SOURCE_BYTES_MAX >> 20));
    }
    let (tokens, errors) = lex(text);
    if let Some(error) = errors.into_iter().next() {
        return Err(error.message);
    }
    match too_large(FileId::NONE, &tokens, text) {
        Some(problem) => Err(problem.message),
        None => Ok(()),
    }
}

fn flaw_problem(id: FileId, flaw: Flaw) -> Problem {
    match flaw {
        Flaw::NotUtf8(at) => {
            Problem::new("not-utf8", Span::new(id, at, at + 1), "the file is not UTF-8 text")
                .label("the first byte that is not")
        }
        Flaw::TooLarge(bytes) => Problem::new(
            "too-large",
            Span::new(id, 0, 0),
            format!("the file has {bytes} bytes; at most {SOURCE_BYTES_MAX} are read"),
        ),
    }
}

/// Refuses what the parser would take quadratic time or deep recursion for.
fn too_large(id: FileId, tokens: &[Token], text: &str) -> Option<Problem> {
    let mut items: Vec<(usize, &Token)> = Vec::new();
    for token in tokens {
        match token.kind {
            TokenKind::Open => items.push((0, token)),
            TokenKind::Close => drop(items.pop()),
            TokenKind::Equal => {
                let Some((count, open)) = items.last_mut() else { continue };
                *count += 1;
                if *count > OBJECT_ITEMS_MAX && text[open.range.clone()].starts_with('{') {
                    let span = Span::new(id, open.range.start, open.range.end);
                    let message = format!("this holds more than {OBJECT_ITEMS_MAX} items");
                    return Some(Problem::new("too-large", span, message));
                }
            }
            _ => {}
        }
        if items.len() > BRACKETS_MAX {
            let span = Span::new(id, token.range.start, token.range.end);
            let message = format!("brackets are nested more than {BRACKETS_MAX} deep");
            return Some(Problem::new("too-large", span, message));
        }
    }
    None
}

fn lex_problem(id: FileId, error: &LexError) -> Problem {
    let span = Span::new(id, error.range.start, error.range.end);
    let mut problem = Problem::new("syntax", span, error.message.clone()).help(error.help);
    if error.message.contains("never closed") {
        problem = problem.label("opened here");
    }
    if let Some((range, text)) = &error.also {
        problem = problem.also(Span::new(id, range.start, range.end), *text);
    }
    problem
}

fn syntax_problem(id: FileId, text: &str, chunk: Range<usize>, error: &hcl_edit::parser::Error) -> Problem {
    let at = (chunk.start + error.location().offset()).min(text.len());
    let at = text.floor_char_boundary(at);
    let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
    let end = if text[at..end].contains('\n') { at } else { end };
    let span = Span::new(id, at, end);
    let raw = error.message();
    if raw.contains("found redefined") {
        return redefined(text, at, span, raw);
    }
    let word_end = text[at..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(text.len(), |n| at + n);
    let found = match text[at..].chars().next() {
        None => "the end of the file".to_owned(),
        Some('\n' | '\r') => "the end of the line".to_owned(),
        Some(_) if word_end > at => format!("`{}`", &text[at..word_end]),
        Some(c) => format!("`{c}`"),
    };
    if raw.contains("invalid escape sequence") {
        let start = text[..at].rfind('\\').unwrap_or(at);
        let span = Span::new(id, start, at.max(start + 1));
        let message = format!("`{}` is no escape sequence", text[start..at].trim());
        let help = "there are `\\n`, `\\r`, `\\t`, `\\\"`, `\\\\`, `\\uNNNN` and `\\UNNNNNNNN`";
        return Problem::new("syntax", span, message).help(help);
    }
    let expected = raw.rsplit("expected ").next().filter(|_| raw.contains("expected "));
    let (message, help) = match expected {
        Some(_) if raw.contains("invalid expression") => {
            let help =
                hint(text, at, "").unwrap_or_else(|| "give a value, such as a string in quotes".to_owned());
            (format!("a value is missing: found {found}"), Some(help))
        }
        Some(list) => (format!("found {found}, expected {}", tidy_expected(list)), hint(text, at, list)),
        None if raw.contains("unexpected token") => (format!("{found} can't stand here"), hint(text, at, "")),
        None => (raw.to_owned(), None),
    };
    Problem::new("syntax", span, message).maybe_help(help)
}

/// The parser's list names every first character of an expression; a reader wants the short form.
fn tidy_expected(list: &str) -> String {
    list.replace("eof", "the end of the file").replace("newline", "a new line").replace("`\\n`", "a new line")
}

fn hint(text: &str, at: usize, expected: &str) -> Option<String> {
    let line_start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let before = text[line_start..at].trim();
    if text[at..].starts_with(':') && !before.is_empty() {
        return Some("attributes are written with `=`".into());
    }
    if text[at..].starts_with('\'') {
        return Some("strings are written with double quotes".into());
    }
    if expected.contains("newline") || expected.contains('}') {
        return Some("each attribute or block stands on a line of its own".into());
    }
    None
}

fn redefined(text: &str, at: usize, span: Span, raw: &str) -> Problem {
    let rest = &text[at..];
    let name_end = rest.find(|c: char| c == '=' || c == ':' || c.is_whitespace()).unwrap_or(rest.len());
    let name = &rest[..name_end];
    let what = if raw.contains("object") { "key" } else { "attribute" };
    let span = Span { end: span.start + name_end as u32, ..span };
    let problem =
        Problem::new("duplicate", span, format!("the {what} `{name}` is set twice")).label("again here");
    match first_place(text, at, name) {
        Some(range) => problem.also(Span::new(span.file, range.start, range.end), "first set here"),
        None => problem,
    }
}

/// Finds the name before `at` on the same level of brackets.
fn first_place(text: &str, at: usize, name: &str) -> Option<Range<usize>> {
    let (tokens, _) = lex(text);
    let end = tokens.partition_point(|t| t.range.start < at);
    let mut depth = 0_usize;
    let mut found = None;
    for (i, token) in tokens[..end].iter().enumerate().rev() {
        match token.kind {
            TokenKind::Close => depth += 1,
            TokenKind::Open if depth == 0 => break,
            TokenKind::Open => depth -= 1,
            TokenKind::Ident | TokenKind::Quoted if depth == 0 && &text[token.range.clone()] == name => {
                let next = tokens.get(i + 1).map(|t| &text[t.range.clone()]);
                if matches!(next, Some("=" | ":")) {
                    found = Some(token.range.clone());
                }
            }
            _ => {}
        }
    }
    found
}

/// Splits a file into its top-level attributes and blocks, by brackets and lines.
fn chunks(tokens: &[Token], text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    let mut filled = false;
    for (i, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.saturating_sub(1),
            TokenKind::Newline => {
                // A line that begins at the left edge with a name and opens a block starts anew, whatever is open.
                let fresh = depth > 0 && begins_block(&tokens[i + 1..], text, token.range.end);
                if fresh {
                    depth = 0;
                }
                if depth == 0 {
                    if filled {
                        out.push(start..token.range.end);
                    }
                    (start, filled) = (token.range.end, false);
                }
                continue;
            }
            TokenKind::LineComment | TokenKind::BlockComment => continue,
            _ => {}
        }
        filled = true;
    }
    if filled {
        out.push(start..text.len());
    }
    out
}

fn begins_block(tokens: &[Token], text: &str, line_start: usize) -> bool {
    let Some(first) = tokens.first() else { return false };
    if first.kind != TokenKind::Ident || first.range.start != line_start {
        return false;
    }
    let line: Vec<&Token> = tokens.iter().take_while(|t| t.kind != TokenKind::Newline).take(8).collect();
    let is_header = |t: &&Token| matches!(t.kind, TokenKind::Ident | TokenKind::Quoted);
    let header = line.iter().take_while(|t| is_header(t)).count();
    line.get(header).is_some_and(|t| &text[t.range.clone()] == "{")
}
