//! Requests to others that the controller makes, and how their failures are told.

use std::time::Duration;

/// What is said of a failure is shown in a line, and may be an entry of the log.
const REASON_CHARS_MAX: usize = 160;

/// Whoever asks, with this time for each request, from the name's resolution to the last byte. What is answered with an error is
/// an answer.
pub(super) fn agent(within: Duration, redirects_max: u32) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(within))
        .max_redirects(redirects_max)
        .http_status_as_error(false)
        // Whoever started Kiln may have had a proxy set for something else.
        .proxy(None)
        .build();
    ureq::Agent::new_with_config(config)
}

/// In one line, without what a terminal would take for more than text.
pub(super) fn brief(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(REASON_CHARS_MAX).collect()
}
