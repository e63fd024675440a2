//! A canary of more instances than a history has, in the world that is made for a hundred thousand of them.

use sim::large::Large;

/// Two services, the second one not full.
const SIZE: u32 = 1_100;

#[test]
fn a_canary_of_many_instances_completes_and_keeps_the_invariants() {
    let mut large = Large::new(1, SIZE).unwrap();
    let came = large.roll_out().unwrap();
    assert!(came.entries > u64::from(SIZE) * 3, "{came:?}");
    assert_eq!(came.lives, 1);
    large.check_end().unwrap();
}

#[test]
fn it_completes_though_the_controller_the_edge_and_the_host_die() {
    let mut large = Large::new(2, SIZE).unwrap();
    large.let_processes_die();
    let came = large.roll_out().unwrap();
    assert_eq!(came.lives, 2, "{came:?}");
    large.check_end().unwrap();
}
