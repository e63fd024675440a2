//! What the controller says no with, and what to do next.

use super::failure::{Failure, Kind};
use crate::api::client::RequestError;
use crate::api::wire::Problem;

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Problem(problem) => told(&problem),
            RequestError::Broken(_) | RequestError::TooSlow(_) => {
                Self::external("the controller did not answer")
                    .caused_by(&error)
                    .hint("the command is safe to repeat; `kiln status` shows what is going on")
            }
            RequestError::Nonsense(_) | RequestError::TooLarge => {
                Self::bug("the controller's answer can't be used").caused_by(&error)
            }
        }
    }
}

fn told(problem: &Problem) -> Failure {
    let kind = match problem.kind.as_str() {
        "refused" | "denied" | "version" => Kind::Refused,
        "unavailable" => Kind::External,
        _ => Kind::Bug,
    };
    let failure = Failure::new(kind, problem.message.clone());
    match hint(&problem.code) {
        Some(hint) => failure.hint(hint),
        None if kind == Kind::Bug => {
            failure.hint("this is a defect in Kiln; `kiln events` shows what led to it")
        }
        None => failure,
    }
}

/// What to do about a refusal, by its code.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "stale_plan" => "`kiln plan` shows what would happen now",
        "other_origin" => "rename the stack, or take the name over with `kiln up --adopt`",
        "unknown_revision" | "nothing_to_roll_back_to" => {
            "`kiln release list --retained` shows what can still be restored"
        }
        "unknown_environment" => "`kiln status` shows the environments; `--env` and `--stack` choose one",
        "rollout_runs" => {
            "`kiln rollout watch` follows it; with `--if-running queue` the new one begins after it, with `supersede` it takes over"
        }
        "halted" => "`kiln rollout resume` tries again, `kiln rollout abort` goes back",
        "unknown_service" => "`kiln status` shows the services",
        "lasts_for_ever" => "leave out `--ttl`; `kiln down` takes an environment down",
        "no_rollout" => "`kiln status` shows what is going on",
        "route_taken" => "give the route another listen, host or path, or `kiln down` what has it",
        "check_missing" => "`kiln up` runs the tests that are missing",
        "too_many_environments" => "`kiln down --env NAME` frees one",
        "not_recorded" => {
            "free some space on the disk of the state folder; what runs goes on, and the command is safe to repeat"
        }
        "no_answer" => "the command is safe to repeat; `kiln status` shows what is going on",
        "not_root" => "run the command as root",
        "other_version" => "`kiln host stop` makes way for this version; instances go on",
        "route_unserved" => "roll the whole environment back, or change the route first",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::Paint;

    #[test]
    fn a_refusal_keeps_its_words_and_gains_a_hint() {
        let problem = Problem {
            kind: "refused".into(),
            code: "stale_plan".into(),
            message: "it was planned against #41, but #42 is there now".into(),
        };
        let failure = Failure::from(RequestError::Problem(problem));
        assert_eq!(failure.exit().code(), 3);
        let expected = "error: it was planned against #41, but #42 is there now\n  \
                        hint:  `kiln plan` shows what would happen now\n";
        assert_eq!(failure.text(Paint::PLAIN), expected);
    }
}
