//! The one writer: turns inputs into events, and events into effects.
//!
//! [`step`] is synchronous and knows neither threads nor clocks, so that the simulation drives exactly what production
//! runs. [`mod@run`] puts an inbox and a clock around it; [`handle`] is what the rest of the process holds.

pub mod commit;
pub mod event_log;
pub mod handle;
pub mod ports;
pub mod run;
mod saver;
pub mod snapshot;
pub mod step;

pub use commit::{Committed, DueAction, FoldError};
pub use event_log::{HeadWatch, StoredLog};
pub use handle::{Ended, Handle, Inbox, channel};
pub use ports::{AppendError, Effects, Log, Peer, ReadError};
pub use run::{Clock, End, SystemClock, Time, run};
pub use step::{Answer, CommandError, Controller, StepOutcome};

#[cfg(test)]
mod tests;
