//! Refusals in words: what was refused and why, with a stable code for programs.

use kiln_core::Refusal;
use kiln_model::RevisionNumber;
use kiln_model::gates::GateVerdict;

use super::wire::Problem;
use crate::controller::CommandError;

/// Says why a command was not carried out.
pub fn problem(error: &CommandError) -> Problem {
    let internal =
        |kind: &str, code: &str| Problem { kind: kind.into(), code: code.into(), message: error.to_string() };
    match error {
        CommandError::Refused(refusal) => {
            let (code, message) = words(refusal);
            Problem { kind: "refused".into(), code: code.into(), message }
        }
        CommandError::NotRecorded { .. } => internal("unavailable", "not_recorded"),
        CommandError::NoAnswer => internal("unavailable", "no_answer"),
        CommandError::Bug { .. } => internal("internal", "bug"),
    }
}

/// The code and the sentence of a refusal.
pub fn words(refusal: &Refusal) -> (&'static str, String) {
    match refusal {
        Refusal::UnknownEnvironment(env) => {
            ("unknown_environment", format!("there is no environment {} of stack {}", env.env, env.stack))
        }
        Refusal::UnknownService(env, service) => {
            ("unknown_service", format!("{env} has no service {service}"))
        }
        Refusal::UnknownRevision(env, number) => {
            ("unknown_revision", format!("{env} has no revision {number}, or it is no longer kept"))
        }
        Refusal::NothingToRollBackTo(env) => {
            ("nothing_to_roll_back_to", format!("{env} has no earlier revision to go back to"))
        }
        Refusal::Halted(env) => ("halted", format!("the rollout of {env} failed and stopped where it is")),
        Refusal::NothingQueued(env) => ("nothing_queued", format!("no rollout of {env} waits for its turn")),
        Refusal::NoRollout(env) => ("no_rollout", format!("no rollout is running in {env}")),
        Refusal::RolloutRuns { env, rollout, target } => {
            ("rollout_runs", format!("{rollout} of {env} is running, to {}", or_nothing(*target)))
        }
        Refusal::GoesBack(env) => {
            ("goes_back", format!("the rollout of {env} goes back already, and that is not held up"))
        }
        Refusal::NothingToPromote(env) => (
            "nothing_to_promote",
            format!("the rollout of {env} is not at a step that waits for time, an analysis or an approval"),
        ),
        Refusal::NotAnApprover { by } => {
            ("not_an_approver", format!("this step waits for an approval by {}", by.join(" or ")))
        }
        Refusal::OtherOrigin { stack, origin } => {
            ("other_origin", format!("the stack name {stack} belongs to {origin}"))
        }
        Refusal::StalePlan { base, current } => {
            ("stale_plan", format!("planned against {base}, but {} is there now", or_nothing(*current)))
        }
        Refusal::RouteTaken { route, owner } => {
            ("route_taken", format!("{route} is answered by a route of {owner} already"))
        }
        Refusal::TooManyEnvironments => {
            ("too_many_environments", "this Kiln has as many environments as it can address".into())
        }
        Refusal::CheckMissing { image, test } => {
            ("check_missing", format!("test {test} of image {} has not passed", image.short()))
        }
        Refusal::NotReachedThere { from, release } => {
            ("not_reached_there", format!("{from} was never moved to release {}", release.short()))
        }
        Refusal::GatesShut { env, verdicts } => {
            ("gates_shut", format!("{env} does not let this release in now: {}", shut(verdicts)))
        }
        Refusal::MayNotApprove { env, by } => {
            ("may_not_approve", format!("{} may approve releases of {env}, and nobody else", by.join(" or ")))
        }
        Refusal::UnknownRelease(stack, release) => {
            ("unknown_release", format!("no environment of stack {stack} has a release {}", release.short()))
        }
        Refusal::LastsForEver(env) => {
            ("lasts_for_ever", format!("{env} was made to last, and is not given an end by the way"))
        }
        Refusal::TooManyReplicas { max } => {
            ("too_many_replicas", format!("a service can have {max} replicas at most"))
        }
        Refusal::RouteUnserved { route, service } => {
            ("route_unserved", format!("{route} leads to a port that {service} lacks at that revision"))
        }
        Refusal::InvalidRevision { reason } => {
            ("invalid_revision", format!("the revision does not hold together: {reason}"))
        }
    }
}

fn or_nothing(revision: Option<RevisionNumber>) -> String {
    revision.map_or_else(|| "nothing".into(), |number| number.to_string())
}

/// What the gates that are shut say.
fn shut(verdicts: &[GateVerdict]) -> String {
    let shut = verdicts.iter().filter(|verdict| !verdict.is_open);
    shut.map(|verdict| verdict.detail.as_str()).collect::<Vec<_>>().join("; ")
}
