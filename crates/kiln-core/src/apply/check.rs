//! The life of a check on an image.

use std::sync::Arc;

use kiln_model::event::CheckEvent;
use kiln_model::{CheckId, Entry};

use super::{ApplyError, key_of};
use crate::state::{Check, State, Verdict};

pub(super) fn apply(
    state: &mut State,
    entry: &Entry,
    id: CheckId,
    event: &CheckEvent,
) -> Result<(), ApplyError> {
    match (state.checks.get_mut(&id), event) {
        (None, CheckEvent::Requested { image, test, spec, spec_digest, deadline })
            if id.0 == entry.position.0 =>
        {
            let check = Check {
                id,
                env: key_of(entry)?.clone(),
                image: *image,
                test: test.clone(),
                spec: spec.clone(),
                spec_digest: *spec_digest,
                deadline: *deadline,
                instance: None,
                answered: false,
            };
            state.checks.insert(id, Arc::new(check));
            Ok(())
        }
        (Some(check), CheckEvent::Passed | CheckEvent::Failed { .. }) if !check.answered => {
            let failure = match event {
                CheckEvent::Failed { reason } => Some(reason.as_str().into()),
                _ => None,
            };
            let check = Arc::make_mut(check);
            check.answered = true;
            let verdict = Verdict { check: id, spec_digest: check.spec_digest, failure, at: entry.at };
            state.verdicts.insert((check.image, check.test.clone()), verdict);
            Ok(())
        }
        (None, CheckEvent::Inspected { image, test, question, failure, basis: _ })
            if id.0 == entry.position.0 =>
        {
            let failure = failure.as_deref().map(Into::into);
            let verdict = Verdict { check: id, spec_digest: *question, failure, at: entry.at };
            state.verdicts.insert((*image, test.clone()), verdict);
            Ok(())
        }
        (_, event) => Err(ApplyError::illegal(id, format!("illegal event {event:?}"))),
    }
}
