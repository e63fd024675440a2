//! Stack files, mutated.

use std::collections::BTreeSet;
use std::path::Path;

use fuzz::Target;
use kiln_model::Timestamp;

use crate::{MemoryFiles, Request, SourceSet, check_fragment, fmt, load};

/// Scenarios that show how work is bounded take as long as it may.
const REFUSED: &str = "_refused";

#[test]
fn stacks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let words = [
        "stack \"a\" {}\n",
        "image \"",
        "service \"",
        "\" {\n",
        "}\n",
        " = ",
        "${",
        "%{ if ",
        "%{ endif ~}",
        "<<-EOT\n",
        "EOT\n",
    ];
    let more = [
        "for x in ",
        " : ",
        " ? ",
        "...",
        "[*]",
        "each.key",
        "local.a",
        "var.x",
        "null",
        "/*",
        "*/",
        "\u{202e}",
        "\\u{",
        "range(",
        "1e999",
    ];
    Target::new(env!("CARGO_MANIFEST_DIR"), "stacks")
        .seeds_of(folder, REFUSED)
        .seed(include_bytes!("../../../examples/shop/stack.hcl"))
        .words(&words)
        .words(&more)
        .run(|bytes| {
            let mut sources = SourceSet::new();
            sources.insert("stack.hcl", bytes);
            let files = MemoryFiles::default();
            let request = Request {
                env: "dev".parse().expect("a name"),
                variables: Default::default(),
                files: &files,
                lock_time: Timestamp(0),
            };
            let loaded = load(&sources, &request);
            let fragment = check_fragment(&sources);
            assert!(
                loaded.stack.is_some() || loaded.has_errors(),
                "nothing came of it, and nothing was said"
            );
            let diagnostics = loaded.diagnostics.iter().chain(&fragment);
            let said = diagnostics.map(|diagnostic| {
                assert!(diagnostic.render(&sources, true).ends_with('\n'));
                diagnostic.code
            });
            let said = said.collect::<BTreeSet<_>>();
            let text = String::from_utf8_lossy(bytes);
            if let Ok(once) = fmt(&text) {
                assert_eq!(fmt(&once).ok().as_ref(), Some(&once), "formatting twice differs");
            }
            said.into_iter().collect::<Vec<_>>().join(" ")
        });
}
