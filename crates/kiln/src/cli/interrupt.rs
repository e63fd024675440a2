//! Ctrl-C: the first one is a wish, the second one an order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::exit::Exit;

/// Whether the user pressed Ctrl-C.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on Ctrl-C is noted instead of ending the process; `also` is called with the first one, on a thread of
    /// its own. The second one ends the process.
    pub(crate) fn listen(also: impl Fn() + Send + 'static) -> Self {
        let interrupt = Self::default();
        let noted = interrupt.clone();
        let wait = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_ok() {
                    noted.0.store(true, Ordering::Release);
                    also();
                }
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(i32::from(Exit::Detached.code()));
                }
            });
        };
        // Without the thread Ctrl-C ends the process as it always did.
        let _ = std::thread::Builder::new().name("ctrl-c".into()).spawn(wait);
        interrupt
    }

    /// Whether it was pressed.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
