//! Sequential tests for canaries: verdicts that may be asked for at any moment, however often.
//!
//! Each test compares what was counted of two groups, the canary and a baseline, under a [`Margin`], and answers with a [`Verdict`]
//! and its [`Evidence`]. It is a function of the counts alone, and valid at every look together (Ville's inequality): whoever looks after each
//! request, or restarts and looks again, gets the same answer and runs no greater [`Risk`].
//!
//! - [`ErrorRate`]: requests that fail, by mixtures of tilted likelihoods against every pair of rates that contradict the claim.
//! - [`Quantile`]: p50, p95, p99 or any other of latencies counted in the buckets of [`kiln_model::latency`].
//! - [`EventRate`]: counts of anything over an exposure.
//!
//! Several metrics share one risk by [`Risk::shared`] and come to one verdict by [`Verdict::of_all`]. What is deliberately absent: a clock,
//! I/O, randomness, and state between looks. `docs/statistics.md` names the papers, says what is assumed, and shows what was simulated.

mod evidence;
mod margin;
mod mixture;
mod quantile;
mod rate;
mod solve;

pub use evidence::{Claim, Estimate, Evidence, Outlook, Risk, Verdict};
pub use margin::Margin;
pub use quantile::{Latencies, Quantile};
pub use rate::{ErrorRate, EventRate, Events, Requests};
