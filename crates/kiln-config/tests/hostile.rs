//! Hostile input: errors, never a panic, never without bounds.
#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

use std::path::Path;
use std::sync::LazyLock;

use kiln_config::{MemoryFiles, Request, SourceSet, fmt, load};
use kiln_model::Timestamp;
use proptest::prelude::*;

/// The scenarios, but for those that only show that work is bounded.
static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let paths = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|p| !p.to_string_lossy().contains("refused")).collect();
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
});

fn check(bytes: &[u8]) {
    let mut sources = SourceSet::new();
    sources.insert("stack.hcl", bytes);
    let files = MemoryFiles::default();
    let request = Request {
        env: "dev".parse().unwrap(),
        variables: Default::default(),
        files: &files,
        lock_time: Timestamp(0),
    };
    let loaded = load(&sources, &request);
    assert!(loaded.stack.is_some() || loaded.has_errors());
    for diagnostic in &loaded.diagnostics {
        let text = diagnostic.render(&sources, true);
        assert!(text.ends_with('\n'));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(once) = fmt(text)
    {
        assert_eq!(fmt(&once).unwrap(), once, "formatting twice differs for {text:?}");
    }
}

/// What a mutation puts in.
fn splice() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "{", "}", "[", "]", "(", ")", "\"", "${", "%{", "~}", "<<-EOT\n", "EOT\n", "\n", "=", ",", ".",
        "...", "*", "?", ":", "/*", "#", "\\", "\\u", "for", "in", "if", "else", "endfor", "each.key",
        "local.a", "var.x", "null", "1e999", "-", "!", "é", "\u{202e}", "\0", "\r\n", "\t",
    ];
    prop_oneof![
        (0..words.len()).prop_map(move |i| words[i].as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 1..4),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn broken_stacks_give_errors(
        pick in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..12, splice()), 1..6),
    ) {
        let mut bytes = CORPUS[pick.index(CORPUS.len())].clone();
        for (at, remove, insert) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + remove).min(bytes.len());
            bytes.splice(at..end, insert);
        }
        check(&bytes);
    }

    #[test]
    fn any_bytes_give_errors(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }
}

#[test]
fn deep_and_wide_input_ends_in_an_error() {
    let deep = |open: &str, close: &str, n: usize| {
        format!("stack \"x\" {{}}\nlocals {{\n  a = {}1{}\n}}\n", open.repeat(n), close.repeat(n))
    };
    for (open, close) in
        [("[", "]"), ("(", ")"), ("{a=", "}"), ("!", ""), ("-", ""), ("\"${", "}\""), ("f(", ")")]
    {
        for n in [63, 64, 65, 1000, 100_000] {
            check(deep(open, close, n).as_bytes());
        }
    }
    check(format!("{}{}", "a {\n".repeat(5000), "}\n".repeat(5000)).as_bytes());
    check(format!("locals {{\n  a = 1{}\n}}\n", " + 1".repeat(50_000)).as_bytes());
    check(format!("locals {{\n  a = x{}\n}}\n", ".y".repeat(50_000)).as_bytes());
    let items: String = (0..20_000).map(|i| format!("k{i} = 1\n")).collect();
    check(format!("locals {{\n  a = {{\n{items}}}\n}}\n").as_bytes());
    check(vec![b'"'; 10_000].as_slice());
    check(vec![b'\n'; 100_000].as_slice());
    check("<<A\n".repeat(2_000).as_bytes());
    check("%{ if x }".repeat(2_000).as_bytes());
    check(format!("locals {{\n  a = \"{}\"\n}}\n", "%{ if true }".repeat(100)).as_bytes());
}

#[test]
fn long_chains_of_locals_do_not_overflow_the_stack() {
    let chain: String = (1..20_000).map(|i| format!("  a{i} = local.a{}\n", i - 1)).collect();
    check(format!("stack \"x\" {{}}\nlocals {{\n  a0 = 1\n{chain}}}\n").as_bytes());
}
