//! The reference says what the tables say, and every HCL block in the docs is HCL that Kiln takes.
#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use kiln_config::{BlockSchema, SourceSet, blocks, check_fragment, functions};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Between these lines `docs/language.md` is written from the tables; the rest is written by hand.
const MARKS: [&str; 2] = ["blocks", "functions"];

fn block_reference() -> String {
    let mut out = String::new();
    for schema in blocks() {
        describe(&mut out, schema, 3, "");
    }
    out
}

fn describe(out: &mut String, schema: &BlockSchema, level: usize, within: &str) {
    let labels: String = schema.labels.iter().map(|l| format!(" \"{}\"", l.to_uppercase())).collect();
    let place = if within.is_empty() { String::new() } else { format!(" in `{within}`") };
    let _ = writeln!(out, "{} `{}{labels}`{place}\n\n{}\n", "#".repeat(level), schema.name, schema.summary);
    if let Some(any) = schema.any_attribute {
        let _ = writeln!(out, "Attributes of any name: {any}\n");
    }
    if !schema.attributes.is_empty() {
        out.push_str("| attribute | takes | default | |\n|---|---|---|---|\n");
        for a in schema.attributes {
            let default = if a.is_required() { "**required**" } else { a.default };
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} |",
                a.name,
                cell(a.takes),
                cell(default),
                cell(a.summary)
            );
        }
        out.push('\n');
    }
    let _ = writeln!(out, "```hcl\n{}\n```\n", schema.example);
    for nested in schema.blocks {
        let many = if nested.many { "any number of" } else { "at most one" };
        let _ = writeln!(out, "Holds {many} `{}`.\n", nested.schema.name);
    }
    // What several blocks hold is described with the first of them.
    for nested in schema.blocks {
        if described(out, nested.schema) {
            continue;
        }
        describe(out, nested.schema, level + 1, schema.name);
    }
}

fn described(out: &str, schema: &BlockSchema) -> bool {
    out.contains(&format!("\n{}\n\n", schema.summary))
}

fn function_reference() -> String {
    let mut out = String::new();
    for (topic, list) in functions() {
        let _ = writeln!(out, "### {topic}\n\n| call | | example | gives |\n|---|---|---|---|");
        for f in list {
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(
                out,
                "| `{}` | {} | `{}` | `{}` |",
                cell(f.signature),
                cell(f.summary),
                cell(f.example),
                cell(f.result)
            );
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_reference_says_what_the_tables_say() {
    let path = root().join("docs/language.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut written = text.clone();
    for name in MARKS {
        let reference = if name == "blocks" { block_reference() } else { function_reference() };
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let start = written.find(&begin).expect("the mark is there") + begin.len();
        let stop = written.find(&end).expect("the mark is there");
        written.replace_range(start..stop, &format!("\n{}\n", reference.trim_end()));
    }
    if std::env::var_os("KILN_BLESS").is_some() {
        std::fs::write(&path, written).unwrap();
    } else {
        assert!(text == written, "docs/language.md differs from the tables: run this test with KILN_BLESS=1");
    }
}

/// All Markdown that users read.
fn documents() -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "md") {
                out.push(entry);
            }
        }
    }
    out.extend(["README.md", "ARCHITECTURE.md"].map(|f| root().join(f)).into_iter().filter(|p| p.exists()));
    out.sort();
    out
}

/// The fenced HCL of a document, each with its line.
fn fenced(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (i, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim()) {
            (None, "```hcl") => open = Some((i + 2, indent, String::new())),
            (Some(_), "```") => {
                let (at, _, body) = open.take().unwrap();
                out.push((at, body));
            }
            (Some((_, outer, body)), _) => {
                body.push_str(line.get(*outer..).unwrap_or_default());
                body.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a fence is never closed");
    out
}

/// Whether a text is taken as the inside of a block, or of one that it holds; `within` are those around it, the outermost first.
fn fits_inside<'a>(
    block: &'a BlockSchema,
    within: &[&'a BlockSchema],
    text: &str,
    accepts: &impl Fn(&str) -> bool,
) -> bool {
    let path = [within, &[block]].concat();
    let wrapped = path.iter().rev().fold(text.to_owned(), |inner, outer| {
        let labels: String = outer.labels.iter().map(|_| " \"x\"").collect();
        format!("{}{labels} {{\n{inner}\n}}\n", outer.name)
    });
    accepts(&wrapped) || block.blocks.iter().any(|nested| fits_inside(nested.schema, &path, text, accepts))
}

/// A fragment may be the inside of a block: then it is tried within each that could hold it.
fn problems(text: &str) -> String {
    let check = |text: &str| {
        let sources: SourceSet = [("docs.hcl", text)].into_iter().collect();
        let found = check_fragment(&sources);
        found.iter().map(|d| d.render(&sources, false)).collect::<String>()
    };
    let whole = check(text);
    let accepts = |wrapped: &str| {
        let found = check(wrapped);
        found.lines().filter(|l| l.starts_with("error")).all(|l| l.contains("missing-attribute"))
    };
    let fits = whole.is_empty() || blocks().any(|b| fits_inside(b, &[], text, &accepts));
    if fits { String::new() } else { whole }
}

#[test]
fn every_fenced_block_of_the_docs_is_taken() {
    let mut wrong = String::new();
    let mut count = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (line, body) in fenced(&text) {
            count += 1;
            let found = problems(&body);
            if !found.is_empty() {
                let _ = writeln!(wrong, "{}:{line}\n{found}", path.display());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 20, "only {count} blocks were found");
}

#[test]
fn a_wrong_block_in_the_docs_would_be_found() {
    assert!(!problems("service \"web\" {\n  replcas = 2\n}\n").is_empty());
    assert!(!problems("a = {\n").is_empty());
    assert!(problems("http {\n  path = \"/\"\n}\n").is_empty());
}

#[test]
fn examples_of_the_tables_are_formatted() {
    fn check(schema: &BlockSchema) {
        let formatted = kiln_config::fmt(&format!("{}\n", schema.example)).unwrap();
        assert_eq!(formatted, format!("{}\n", schema.example));
        schema.blocks.iter().for_each(|n| check(n.schema));
    }
    blocks().for_each(check);
}
