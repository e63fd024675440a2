//! Faults planted on purpose must be found, or the histories that hold prove nothing.

use sim::Plant;

/// Seeds within which a planted fault must be found. CI runs many times as many without one.
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

#[test]
fn keeping_the_ill_in_the_routes_is_found() {
    let invariant = "traffic reaches only what is healthy and of a release that is wanted";
    assert!(breaks(Plant::KeepUnhealthy, invariant));
}

#[test]
fn serving_a_revision_that_nobody_sealed_is_found() {
    assert!(breaks(Plant::MixUpRevisions, "traffic reaches only known releases"));
}

#[test]
fn a_step_without_a_deadline_is_found() {
    assert!(breaks(Plant::LoseDeadline, "a rollout ends or says what it waits for"));
}

#[test]
fn an_approval_by_somebody_who_may_not_is_found() {
    assert!(breaks(Plant::ApproveForAnybody, "only who may approve does"));
}

#[test]
fn collecting_what_could_be_gone_back_to_is_found() {
    assert!(breaks(Plant::CollectEarly, "a rollback is possible at any moment"));
}
