//! `kiln release`

mod approve;
mod scanned;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use kiln_model::release::{Binding, Release, RequiredCheck};
use kiln_model::{Digest, RevisionNumber};
use kiln_store::Store;
use serde_json::{Value, json};

use super::context::Context;
use super::deploy::scans;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::safety::Safety;
use super::screen::Paint;
use super::table::Table;
use crate::api::wire;

/// List and show what an environment can be moved to
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln release list --env prod\n  kiln release show 41")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List revisions, the newest first
    #[command(after_help = "Example:\n  kiln release list --retained")]
    List {
        /// Only what a rollback can go to
        #[arg(long)]
        retained: bool,
    },
    /// Show the release behind a revision: images, holes, checks, and whether it can be gone back to
    #[command(after_help = "Example:\n  kiln release show 41")]
    Show {
        /// The revision, as 41 or #41; by default the current one
        #[arg(value_parser = super::rollback::number)]
        revision: Option<RevisionNumber>,
    },
    /// Let a release into the environment, as far as it depends on you
    ///
    /// For environments whose gates ask for an approval. It is about the release, by its digest, and ends by itself.
    #[command(after_help = "Example:\n  kiln release approve 3f9a2c81d07e --env prod --within 8h")]
    Approve(approve::Args),
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let client = context.client("release")?;
    let target = context.target(&client)?;
    match &args.verb {
        Verb::Approve(args) => approve::run(args, &client, &target, context),
        Verb::List { retained } => {
            let mut revisions = client.revisions(&target)?;
            let store = open(context)?;
            if *retained {
                revisions.retain(|revision| revision.completed);
            }
            if context.screen.json() {
                let mut shown = json!(revisions);
                for (revision, shown) in revisions.iter().zip(shown.as_array_mut().into_iter().flatten()) {
                    shown["packed"] = json!(is_packed(&store, revision));
                }
                context.screen.answer(&json!({ "environment": target.to_string(), "revisions": shown }));
                return Ok(Exit::Done);
            }
            let packed = |revision: &wire::Revision| is_packed(&store, revision);
            let text = list(&revisions, packed, context.screen.paint());
            context.screen.print(&text);
            Ok(Exit::Done)
        }
        Verb::Show { revision } => {
            let current = || client.environment(&target).map(|environment| environment.current);
            let number = match revision {
                Some(number) => *number,
                None => RevisionNumber(current()?.ok_or_else(|| {
                    Failure::refused(format!("{target} has no revision yet"))
                        .hint("`kiln up` makes the first one")
                })?),
            };
            let detail = client.revision(&target, number)?;
            let mut shown = Shown::load(context, &detail)?;
            shown.scanned = scanned::bases(&client, &target, number, &shown.release)?;
            if context.screen.json() {
                let answer = shown.json(&detail);
                context.screen.answer(&answer);
            } else {
                let text = shown.text(&detail, context.screen.paint());
                context.screen.print(&text);
            }
            Ok(Exit::Done)
        }
    }
}

fn open(context: &Context<'_>) -> Result<Store, Failure> {
    Store::open(context.state().path())
        .map_err(|error| Failure::external("the store can't be opened").caused_by(&error))
}

/// Whether an image of a revision must be unpacked before it is started, which happens by itself.
fn is_packed(store: &Store, revision: &wire::Revision) -> bool {
    // What can't be read is no image that is packed; `kiln release show` says what is wrong with it.
    let release = revision.release.parse::<Digest>().ok().and_then(|it| store.releases.release(&it).ok());
    release.is_some_and(|release| release.images.values().any(|image| store.is_packed(image)))
}

fn list(revisions: &[wire::Revision], is_packed: impl Fn(&wire::Revision) -> bool, paint: Paint) -> String {
    let mut table = Table::new(&["REVISION", "RELEASE", "SERVICES", "STATE", ""]);
    for revision in revisions {
        let state = match (revision.current, revision.warm, revision.completed) {
            (true, ..) => paint.green("current"),
            (false, true, _) => paint.yellow("warm"),
            (false, false, true) if is_packed(revision) => "retained, packed".into(),
            (false, false, true) => "retained".into(),
            (false, false, false) => paint.dim("never reached"),
        };
        let release: String = revision.release.trim_start_matches("sha256:").chars().take(12).collect();
        let made = revision.composed.clone().unwrap_or_default();
        table.row([format!("#{}", revision.number), release, revision.services.to_string(), state, made]);
    }
    table.render(0)
}

/// A release and its binding, as stored.
struct Shown {
    release: Release,
    binding: Binding,
    /// The images that must be unpacked before they are started.
    packed: BTreeSet<Digest>,
    /// By what its images were scanned.
    scanned: BTreeMap<Digest, String>,
    /// Whether it can be gone back to.
    safety: Safety,
}

impl Shown {
    fn load(context: &Context<'_>, detail: &wire::RevisionDetail) -> Result<Self, Failure> {
        let store = open(context)?;
        let digest = |text: &str| {
            text.parse::<Digest>()
                .map_err(|error| Failure::bug("the controller named an impossible digest").cause(error))
        };
        let lost = |error: kiln_store::ReadError| {
            Failure::external(format!("the release of #{} can't be read", detail.revision.number))
                .caused_by(&error)
        };
        let release = store.releases.release(&digest(&detail.revision.release)?).map_err(lost)?;
        let packed = release.images.values().filter(|image| store.is_packed(image)).copied().collect();
        Ok(Self {
            release,
            packed,
            scanned: BTreeMap::new(),
            safety: Safety::of(&context.state(), detail)?,
            binding: store.releases.binding(&digest(&detail.revision.binding)?).map_err(lost)?,
        })
    }

    /// What a scan was answered by; none for what the image alone decides.
    fn basis(&self, check: &RequiredCheck) -> Option<&str> {
        let is_scan = check.test == scans::NAME;
        self.scanned.get(&check.image).filter(|_| is_scan).map(String::as_str)
    }

    fn json(&self, detail: &wire::RevisionDetail) -> Value {
        let pairs = |pairs: Vec<(String, String)>| {
            pairs.into_iter().map(|(key, value)| (key, json!(value))).collect::<serde_json::Map<_, _>>()
        };
        let checks: Vec<Value> = self
            .release
            .checks
            .iter()
            .map(|check| {
                let mut shown = json!({ "image": check.image.to_string(), "test": check.test });
                if let Some(basis) = self.basis(check) {
                    shown["basis"] = json!(basis);
                }
                shown
            })
            .collect();
        json!({
            "revision": detail.revision,
            "source": self.release.source.to_string(),
            "images": pairs(self.release.images.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
            "packed": self.packed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "holes": pairs(self.release.holes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()),
            "variables": pairs(self.binding.variables.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()),
            "secrets": pairs(self.binding.secrets.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
            "checks": checks,
            "sealed": detail.sealed,
            "rollback": self.safety.json(),
        })
    }

    fn text(&self, detail: &wire::RevisionDetail, paint: Paint) -> String {
        let mut text = String::new();
        let revision = &detail.revision;
        let mut section = |title: &str, rows: Vec<[String; 2]>| {
            if rows.is_empty() {
                return;
            }
            let mut table = Table::bare();
            rows.into_iter().for_each(|row| table.row(row));
            // Writing to a String can't fail.
            let _ = write!(text, "{}\n{}", paint.bold(title), table.render(2));
        };
        section(
            &format!("Revision #{}", revision.number),
            vec![
                ["release".into(), revision.release.clone()],
                ["binding".into(), revision.binding.clone()],
                ["source".into(), self.release.source.to_string()],
                ["rollback-safe:".into(), self.safety.text()],
            ],
        );
        let images = self.release.images.iter().map(|(name, digest)| {
            let packed = if self.packed.contains(digest) { " (packed)" } else { "" };
            [name.to_string(), format!("{digest}{packed}")]
        });
        section("Images", images.collect());
        let holes = self.release.holes.iter().map(|(name, kind)| {
            let value = self.binding.variables.get(name).map_or("(sensitive)", String::as_str);
            [format!("{name} ({kind})"), value.into()]
        });
        section("Holes, as filled in", holes.collect());
        let secrets =
            self.binding.secrets.iter().map(|(name, version)| [name.clone(), format!("version {version}")]);
        section("Secrets", secrets.collect());
        let checks = self.release.checks.iter().map(|check| {
            let by = self.basis(check).map(|basis| format!(", by {basis}")).unwrap_or_default();
            [check.test.clone(), format!("on {}{by}", check.image.short())]
        });
        section("Required checks", checks.collect());
        let services = detail
            .sealed
            .services
            .iter()
            .map(|(name, service)| [name.clone(), format!("{} × {}", service.replicas, service.kind)]);
        section("Services", services.collect());
        text
    }
}
