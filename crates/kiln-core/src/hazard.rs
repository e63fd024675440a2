//! What makes going back to a revision unsafe, as far as the log tells.
//!
//! Nothing here refuses anything: whoever goes back may know better. Images and secrets are the store's to look at.

use std::collections::BTreeSet;
use std::fmt;

use kiln_model::release::RevisionSpec;
use kiln_model::service::{Service, ServiceKind};
use kiln_model::{Digest, EnvKey, RevisionNumber, ServiceName, VolumeName};

use crate::decide::routes_are_free;
use crate::input::Refusal;
use crate::state::{Environment, State};

/// Why going back to a revision may not lead to what it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hazard {
    /// A job that came with a later revision writes to a volume: what is in it may be of another shape since.
    Migrated {
        /// The volume.
        volume: VolumeName,
        /// Who would mount it again.
        reader: ServiceName,
        /// The job.
        job: ServiceName,
        /// The job's revision; none for one that is only planned.
        revision: Option<RevisionNumber>,
    },
    /// A later revision writes to a volume with another program or other settings.
    Shared {
        /// The volume.
        volume: VolumeName,
        /// Who would mount it again.
        reader: ServiceName,
        /// Who writes to it.
        writer: ServiceName,
        /// The writer's revision; none for one that is only planned.
        revision: Option<RevisionNumber>,
    },
    /// Another environment answers for one of its routes by now.
    RouteTaken {
        /// The route, as text.
        route: String,
        /// Whose it is.
        owner: EnvKey,
    },
}

impl Hazard {
    /// Returns the service that is endangered; none if it is the whole revision.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Migrated { reader, .. } | Self::Shared { reader, .. } => Some(reader),
            Self::RouteTaken { .. } => None,
        }
    }
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |revision: &Option<RevisionNumber>| match revision {
            Some(number) => format!(" of {number}"),
            None => String::new(),
        };
        match self {
            Self::Migrated { volume, reader, job, revision } => {
                let of = of(revision);
                write!(f, "volume {volume}, which {reader} mounts, may have been changed by job {job}{of}")
            }
            Self::Shared { volume, reader, writer, revision } => {
                let of = of(revision);
                write!(f, "volume {volume}, which {reader} mounts, is written to by {writer}{of} as well")
            }
            Self::RouteTaken { route, owner } => write!(f, "{owner} answers for {route} by now"),
        }
    }
}

/// Returns what makes going back to a retained revision unsafe, each thing once; none if it is not retained.
pub fn hazards(state: &State, env: &EnvKey, to: RevisionNumber) -> Option<Vec<Hazard>> {
    let env = state.environment(env)?;
    let back = env.spec(Some(to))?;
    let mut found = volume_hazards(back, since(env, to));
    if let Err(Refusal::RouteTaken { route, owner }) = routes_are_free(state, &env.key, back) {
        found.push(Hazard::RouteTaken { route, owner });
    }
    Some(found)
}

/// Returns which volumes of `back` the revisions that came `since` write to. One that has no number is only planned.
pub fn volume_hazards<'a>(
    back: &RevisionSpec,
    since: impl IntoIterator<Item = (Option<RevisionNumber>, &'a RevisionSpec)>,
) -> Vec<Hazard> {
    // What ran in it already leaves nothing that it does not know.
    let known: BTreeSet<Digest> = back.services.values().map(|service| service.spec_digest).collect();
    let mut found = Vec::new();
    for (revision, spec) in since {
        let writers = spec.services.values().filter(|service| !known.contains(&service.spec_digest));
        for (writer, volume) in writers.flat_map(written) {
            // No job runs on the way back.
            let readers = back.services.values().filter(|service| service.kind != ServiceKind::Job);
            for reader in readers.filter(|reader| mounts(reader, volume)) {
                let (volume, reader, writer_name) =
                    (volume.clone(), reader.name.clone(), writer.name.clone());
                let hazard = match writer.kind {
                    ServiceKind::Job => Hazard::Migrated { volume, reader, job: writer_name, revision },
                    ServiceKind::Service | ServiceKind::Worker => {
                        Hazard::Shared { volume, reader, writer: writer_name, revision }
                    }
                };
                if !found.contains(&hazard) {
                    found.push(hazard);
                }
            }
        }
    }
    found
}

fn written(service: &Service) -> impl Iterator<Item = (&Service, &VolumeName)> {
    let mounts = service.spec.volumes.values().filter(|mount| !mount.read_only);
    mounts.map(move |mount| (service, &mount.volume))
}

fn mounts(service: &Service, volume: &VolumeName) -> bool {
    service.spec.volumes.values().any(|mount| mount.volume == *volume)
}

/// The revisions whose instances and jobs ran since `to` was reached last, in order.
fn since(
    env: &Environment,
    to: RevisionNumber,
) -> impl Iterator<Item = (Option<RevisionNumber>, &RevisionSpec)> {
    let reached = env.completed.iter().position(|number| *number == to);
    let later = env.completed.iter().enumerate().filter(move |(at, number)| match reached {
        Some(reached) => *at > reached,
        // Its rollout went back: what it left behind was met by all that came after it.
        None => **number > to,
    });
    // What a rollout moves to runs already, at least in part.
    let running = env.rollout.as_ref().and_then(|rollout| rollout.to).filter(|number| *number != to);
    let numbers: BTreeSet<RevisionNumber> = later.map(|(_, number)| *number).chain(running).collect();
    numbers.into_iter().filter_map(|number| Some((Some(number), env.spec(Some(number))?)))
}
