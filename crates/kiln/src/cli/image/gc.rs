//! `kiln image gc`

use std::fmt::Write as _;

use kiln_model::ByteSize;

use crate::api::client::RequestError;
use crate::api::wire;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::table::{Table, count};

pub(super) fn run(dry_run: bool, pack: bool, context: &mut Context<'_>) -> Outcome {
    let client = context.client("image gc")?;
    let answer = client.collect(&wire::Collect { dry_run, pack }).map_err(|error| match error {
        RequestError::Problem(problem) if problem.code == "storing" => {
            Failure::refused("it has to wait until nothing is being stored")
                .cause(problem.message)
                .hint("run it again when that is done")
        }
        RequestError::Problem(problem) if problem.code == "not_collected" => Failure::external(
            "the store can't be collected",
        )
        .cause(problem.message)
        .hint(
            "what is there is whole; `kiln bake` makes what is damaged again, and a later collection goes on",
        ),
        other => other.into(),
    })?;
    let damaged = &client.health().damaged;
    if context.screen.json() {
        let mut answer = serde_json::to_value(&answer).expect("a wire struct is JSON");
        answer["damaged"] = damaged.as_slice().into();
        context.screen.answer(&answer);
    } else {
        let damaged = damaged.iter().map(|it| format!("! damaged: {it}\n")).collect::<String>();
        context.screen.print(&(text(&answer) + &damaged));
    }
    Ok(Exit::Done)
}

fn text(answer: &wire::Collection) -> String {
    let mut text = String::new();
    let heading = if answer.dry_run { "WOULD GO" } else { "GONE" };
    if !answer.gone.is_empty() || !answer.caches.is_empty() {
        let mut table = Table::new(&[heading, "SIZE", ""]);
        for image in &answer.gone {
            table.row([short(image), size(image), image.reasons.join("; ")]);
        }
        for cache in &answer.caches {
            let size = ByteSize(cache.size_bytes).to_string();
            table.row([format!("cache {}", cache.id), size, String::new()]);
        }
        text.push_str(&table.render(0));
        text.push('\n');
    }
    // What stays is of interest before something goes; afterwards `kiln image list` shows it.
    if answer.dry_run && !answer.kept.is_empty() {
        let mut table = Table::new(&["STAYS", "SIZE", "BECAUSE"]);
        for image in &answer.kept {
            let mut reasons = image.reasons.iter();
            let packed = if image.packed { " (packed)" } else { "" };
            table.row([short(image), size(image) + packed, reasons.next().cloned().unwrap_or_default()]);
            reasons.for_each(|reason| table.row(["", "", reason]));
        }
        text.push_str(&table.render(0));
        text.push('\n');
    }
    // Writing to a String can't fail.
    let _ = writeln!(text, "{}", sentence(answer));
    if let Some(packing) = &answer.packing {
        let _ = writeln!(text, "{}", packing_sentence(packing, answer.dry_run));
    }
    if let Some(disk) = &answer.disk {
        text.push_str(&disk_text(disk, if answer.dry_run { "would take" } else { "takes" }));
    }
    text
}

fn sentence(answer: &wire::Collection) -> String {
    let counts = [
        (answer.gone.len() as u64, "image"),
        (answer.trees, "tree"),
        (answer.files, "file"),
        (answer.blobs, "blob"),
        (answer.packed, "packed file"),
        (answer.caches.len() as u64, "cache"),
        (answer.fetched, "fetched file"),
        (answer.secrets, "secret value"),
    ];
    let parts: Vec<String> = counts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| count(usize::try_from(number).unwrap_or(usize::MAX), what))
        .collect();
    let freed = ByteSize(answer.bytes);
    match (parts.is_empty(), answer.dry_run) {
        (true, _) => "Nothing goes: all that is stored is needed.".into(),
        (false, true) => format!("{freed} would be freed: {}.", parts.join(", ")),
        (false, false) => format!("{freed} freed: {}.", parts.join(", ")),
    }
}

fn packing_sentence(packing: &wire::Packing, dry_run: bool) -> String {
    let files = count(usize::try_from(packing.files).unwrap_or(usize::MAX), "file");
    let (bytes, packs) = (ByteSize(packing.bytes), ByteSize(packing.packs_bytes));
    match (packing.files, dry_run) {
        (0, _) => format!("Nothing more to pack; the packs hold {packs}."),
        (_, true) => format!("{files} of {bytes} would be packed."),
        (_, false) => format!("{files} of {bytes} packed; the packs hold {packs}."),
    }
}

/// How much room the store takes of its budget, and what holds what is too much.
pub(crate) fn disk_text(disk: &wire::Disk, takes: &str) -> String {
    let (used, budget) = (ByteSize(disk.used_bytes), ByteSize(disk.budget_bytes));
    if !disk.is_short() {
        return format!("The store {takes} {used} of its budget of {budget}.\n");
    }
    let over = ByteSize(disk.used_bytes - disk.budget_bytes);
    let mut text = format!("The store {takes} {used}, {over} more than its budget of {budget}, for:\n");
    let mut table = Table::bare();
    disk.held.iter().for_each(|held| table.row([ByteSize(held.bytes).to_string(), held.what.clone()]));
    text.push_str(&table.render(2));
    text
}

fn short(image: &wire::CollectedImage) -> String {
    image.digest.trim_start_matches("sha256:").chars().take(12).collect()
}

fn size(image: &wire::CollectedImage) -> String {
    ByteSize(image.size_bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(byte: char, reasons: &[&str]) -> wire::CollectedImage {
        wire::CollectedImage {
            digest: format!("sha256:{}", byte.to_string().repeat(64)),
            names: Vec::new(),
            size_bytes: 3 << 20,
            reasons: reasons.iter().map(|reason| (*reason).to_string()).collect(),
            packed: false,
        }
    }

    #[test]
    fn caches_beyond_their_bound_are_named() {
        let cache = wire::CollectedCache { id: "/root/.npm".into(), size_bytes: 2 << 30 };
        let answer = wire::Collection { caches: vec![cache], bytes: 2 << 30, ..Default::default() };
        let expected = "GONE              SIZE\ncache /root/.npm  2 GiB\n\n2 GiB freed: 1 cache.\n";
        assert_eq!(text(&answer), expected);
    }

    #[test]
    fn what_holds_more_than_the_budget_is_listed() {
        let held = |bytes, what: &str| wire::Held { bytes, what: what.into() };
        let held = vec![held(3 << 30, "what runs"), held(20 << 20, "caches of RUN steps")];
        let disk = wire::Disk { budget_bytes: 2 << 30, used_bytes: (3 << 30) + (20 << 20), held };
        let expected = "\
The store takes 3.0 GiB, 1.0 GiB more than its budget of 2 GiB, for:
  3 GiB   what runs
  20 MiB  caches of RUN steps
";
        let shown: Vec<_> = disk_text(&disk, "takes").lines().map(str::to_owned).collect();
        assert_eq!(shown, expected.lines().collect::<Vec<_>>());
        let fits = wire::Disk { used_bytes: 1 << 30, held: Vec::new(), ..disk };
        assert_eq!(disk_text(&fits, "would take"), "The store would take 1 GiB of its budget of 2 GiB.\n");
    }

    #[test]
    fn what_would_go_is_told_from_what_stays_with_every_reason() {
        let mut answer = wire::Collection {
            dry_run: true,
            gone: vec![image('a', &[])],
            kept: vec![image('b', &["web/0 of shop/prod is running", "it is called shop/web"])],
            trees: 2,
            files: 1,
            bytes: 5 << 20,
            ..Default::default()
        };
        let expected = "\
WOULD GO      SIZE
aaaaaaaaaaaa  3 MiB

STAYS         SIZE   BECAUSE
bbbbbbbbbbbb  3 MiB  web/0 of shop/prod is running
                     it is called shop/web

5 MiB would be freed: 1 image, 2 trees, 1 file.
";
        assert_eq!(text(&answer), expected);
        (answer.dry_run, answer.packing) =
            (false, Some(wire::Packing { files: 2, bytes: 9 << 20, packs_bytes: 1 << 20 }));
        assert_eq!(
            text(&answer),
            "GONE          SIZE\naaaaaaaaaaaa  3 MiB\n\n5 MiB freed: 1 image, 2 trees, 1 file.\n2 files of 9 MiB packed; the packs hold 1 MiB.\n"
        );
        assert_eq!(text(&wire::Collection::default()), "Nothing goes: all that is stored is needed.\n");
    }
}
