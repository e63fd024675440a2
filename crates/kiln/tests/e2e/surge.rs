//! A canary that has room for few instances more.

use crate::machine::{Machine, wait_for};

#[test]
fn a_canary_with_a_bound_never_has_more_instances_than_it_may() {
    let machine = Machine::new();
    let canary = "rollout \"canary\" {
    max_surge = 1
    steps     = [\"30%\"]
    hold      = \"1s\"
  }";
    machine.write_tiny("v1", 3, canary);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 3, canary);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v2");
    // The receipt is made soon after the end.
    let extra = wait_for("the receipt is there", || {
        machine.json(&["rollout", "show"])["record"]["receipt"]["unlimited_extra"].as_u64()
    });
    assert_eq!(extra, 1, "instances at the peak beyond those at the start");
    assert_eq!(machine.instances().len(), 3, "nothing is kept warm");

    machine.edit_stack("\"30%\"", "\"60%\"");
    machine.kiln(&["check"]).fails_with("takes 2 instances more than 3, and `max_surge` is 1");
}
