//! Faults planted on purpose must be found, or the histories that hold prove nothing.

use sim::Plant;

/// Seeds within which a planted fault must be found. CI runs fifty times as many without one.
const SEEDS_MAX: u64 = 200;

/// Whether the planted fault breaks this invariant in one of the histories.
fn breaks(plant: Plant, invariant: &str) -> bool {
    let mut broken = (0..SEEDS_MAX).filter_map(|seed| sim::run(seed, Some(plant)).err());
    broken.any(|violation| violation.invariant == invariant)
}

#[test]
fn acting_before_the_append_is_found() {
    assert!(breaks(Plant::ActBeforeAppend, "no effect before its record"));
}

#[test]
fn dropping_what_is_outstanding_at_a_restart_is_found() {
    assert!(breaks(Plant::DropOutstanding, "the world comes to rest"));
}

#[test]
fn accepting_an_old_fence_is_found() {
    assert!(breaks(Plant::AcceptOldFence, "the edge routes only to what exists"));
}

#[test]
fn retiring_before_the_acknowledgement_is_found() {
    assert!(breaks(Plant::RetireBeforeAck, "no destroy before the acknowledgement of a table without it"));
}

#[test]
fn reusing_an_address_early_is_found() {
    assert!(breaks(Plant::ReuseAddressEarly, "an address belongs to one instance"));
}

#[test]
fn publishing_speculative_state_is_found() {
    assert!(breaks(Plant::PublishSpeculative, "nothing is published before its record"));
}

#[test]
fn a_snapshot_that_forgets_is_found() {
    assert!(breaks(Plant::SnapshotForgets, "replay equals live"));
}
