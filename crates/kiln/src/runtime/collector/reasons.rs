//! Why an image is not collected, for people.

use std::collections::BTreeMap;

use kiln_core::State;
use kiln_core::state::{Environment, Instance, Phase};
use kiln_model::event::Purpose;
use kiln_model::{Digest, RevisionNumber};
use kiln_store::Store;

/// What keeps each image, the strongest reason first. An image that is kept and stands here with no reason is named by another
/// that is, or by the lock of a retained revision.
#[derive(Debug, Default)]
pub(super) struct Reasons(BTreeMap<Digest, Vec<String>>);

impl Reasons {
    /// Asks the log and the names.
    pub(super) fn of(state: &State, store: &Store, names: &[(String, Digest)]) -> Self {
        let mut reasons = Self::default();
        for instance in state.instances() {
            reasons.add(instance.spec.image, instance_reason(instance));
        }
        for check in state.checks() {
            reasons.add(check.image, format!("test {} is running", check.test));
        }
        for env in state.environments() {
            for revision in env.revisions.values().rev() {
                let reason = format!("{}{} is {}", env.key, revision.number, word(env, revision.number));
                let mut images: Vec<Digest> =
                    revision.spec.services.values().map(|service| service.spec.image).collect();
                // One that can't be read stops the collection itself, which says so better.
                let release = store.releases.release(&revision.release);
                images.extend(release.into_iter().flat_map(|release| release.images.into_values()));
                for image in images {
                    reasons.add(image, reason.clone());
                }
            }
        }
        for (name, image) in names {
            reasons.add(*image, format!("it is called {name}"));
        }
        reasons
    }

    /// Returns what keeps an image.
    pub(super) fn take(&mut self, image: &Digest) -> Vec<String> {
        self.0.remove(image).unwrap_or_else(|| vec!["what is kept is made from it".into()])
    }

    fn add(&mut self, image: Digest, reason: String) {
        let reasons = self.0.entry(image).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
}

fn word(env: &Environment, number: RevisionNumber) -> &'static str {
    if env.current == Some(number) {
        "current"
    } else if env.target() == Some(number) {
        "being rolled out"
    } else if env.completed.contains(&number) {
        "retained"
    } else {
        "not given up yet"
    }
}

fn instance_reason(instance: &Instance) -> String {
    let word = match &instance.phase {
        Phase::Warm { .. } => "kept warm",
        phase => phase.word(),
    };
    match &instance.purpose {
        Purpose::Slot { slot, .. } => {
            format!("{}/{} of {} is {word}", slot.service, slot.ordinal, instance.env)
        }
        Purpose::Check(_) => format!("an instance of a test is {word}"),
    }
}
