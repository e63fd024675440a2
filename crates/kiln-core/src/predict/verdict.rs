//! How long an analysis takes where none was seen: by the requests that it needs, and how many come.

use kiln_model::service::Strategy;
use kiln_model::{Millis, ServiceName};

use crate::outlook::needed;
use crate::state::{Environment, Rollout};

/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;

/// How long the analysis of a service takes that finds its canary to be no worse, at so many requests a minute to the
/// whole service; none where no end can be told.
pub(super) fn expected(
    env: &Environment,
    rollout: &Rollout,
    service: &ServiceName,
    per_minute: Option<u64>,
) -> Option<Millis> {
    let Strategy::Canary(canary) = &env.service(rollout.to, service)?.strategy else { return None };
    let analysis = canary.analysis.as_ref()?;
    let measured = analysis.outside.iter().filter(|metric| !metric.dry_run);
    let measured = measured.map(|it| it.interval.0.saturating_mul(u64::from(it.count))).max().unwrap_or(0);
    if analysis.metrics.is_empty() {
        return Some(Millis(measured));
    }
    let share = u64::from(rollout.splits.get(service)?.weight.per_mille());
    let needed = needed(analysis, canary.compared_shares())?;
    // The baseline gets as large a share as the canary.
    let clients = per_minute.map(|all| all.saturating_mul(2 * share) / 1000);
    // What Kiln makes itself, to both, as long as there is enough of it.
    let made = analysis.synthetic.as_ref().filter(|it| needed <= 2 * u64::from(it.count));
    let made = made.map(|it| 120 * u64::from(it.rate));
    let took = needed.saturating_mul(MINUTE).checked_div(clients.max(made)?)?;
    Some(Millis(took.max(measured)))
}
