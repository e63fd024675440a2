//! What a strategy has no use for: refused where it stands, with the reason and with what does it instead.

use crate::diagnostic::Problem;
use crate::reader::Reader;

/// The names that are for some strategies, and for which.
const OWNERS: [(&str, &[&str]); 11] = [
    ("auto_promote", &["blue_green"]),
    ("max_surge", &["rolling", "canary"]),
    ("max_unavailable", &["rolling"]),
    ("waves", &["rolling"]),
    ("soak", &["rolling"]),
    ("steps", &["canary"]),
    ("hold", &["canary"]),
    ("analysis", &["canary"]),
    ("sticky", &["canary"]),
    ("match", &["canary"]),
    ("mirror", &["canary"]),
];

pub(super) fn refuse_misplaced(rollout: Reader<'_>, label: &str) {
    for (name, owners) in OWNERS.into_iter().filter(|(_, owners)| !owners.contains(&label)) {
        let span = rollout.block(name).map(|block| block.header);
        let Some(span) = span.or_else(|| rollout.has(name).then(|| rollout.span(name))) else { continue };
        let owners = owners.join("\" or \"");
        let (message, help) = match reason(name, label) {
            Some((why, help)) => (format!("`{name}` means nothing to \"{label}\": {why}"), help.to_owned()),
            None => {
                (format!("`{name}` is for \"{owners}\" alone"), format!("use \"{owners}\", or leave it out"))
            }
        };
        rollout.report(Problem::new("wrong-value", span, message).help(help));
    }
}

/// Why a strategy has no use for it, and what to write instead.
fn reason(name: &str, label: &str) -> Option<(&'static str, &'static str)> {
    Some(match (name, label) {
        ("max_surge", "blue_green") => (
            "all new instances stand beside the old ones before the one switch",
            "use \"rolling\" or \"canary\", which replace some at a time",
        ),
        ("max_surge", "stop_then_start") => (
            "the old instances are gone before new ones start, so there are never more",
            "leave it out, or use \"rolling\"",
        ),
        ("max_unavailable", "blue_green" | "canary") => (
            "the old instances stay until the new ones have the requests, so none is missing",
            "leave it out, or use \"rolling\" with `max_surge = 0`",
        ),
        ("max_unavailable", "stop_then_start") => (
            "all instances are away until the new ones have started",
            "use \"rolling\" with `max_surge = 0`, which takes some at a time",
        ),
        ("auto_promote", "canary") => (
            "it has a step for each share",
            "write `step { approve = [] }` after a `step { shift = \"5%\" }`",
        ),
        ("auto_promote", "rolling" | "stop_then_start") => (
            "there is no one switch that somebody could let",
            "write `step { approve = [] }` where it is to wait",
        ),
        _ => return None,
    })
}
