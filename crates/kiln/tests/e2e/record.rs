//! What `kiln rollout show --json` says of a rollout.

use serde_json::Value;

/// Fails the test unless a rollout, as `rollout show` has it, went back and says this.
#[track_caller]
pub fn assert_went_back(record: &Value, because: &str) {
    assert_eq!(record["rollout"]["ended"]["outcome"], "went_back", "{record:#}");
    let reason = record["rollout"]["ended"]["reason"].as_str().unwrap();
    assert!(reason.contains(because), "{reason}");
}
