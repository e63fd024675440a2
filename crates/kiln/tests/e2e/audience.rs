//! Who sees a canary: testers always, a user the same version at every request, and copies nobody.

use std::collections::BTreeSet;

use crate::machine::{Machine, get_with, wait_for};

/// Two shares, each held until somebody lets it go on.
const CANARY: &str = "rollout \"canary\" {
    step {
      shift = \"30%\"
    }
    step {
      hold = \"1h\"
    }
    step {
      shift = \"60%\"
    }
    step {
      hold = \"1h\"
    }

    sticky {
      header = \"X-User\"
    }
    match {
      header = \"X-Version\"
      equals = \"next\"
    }
    mirror {}
  }";

/// So many that each share has some and lacks some. Their places follow from their names alone.
const USERS: u32 = 60;

/// The version that answers a request with this header.
#[track_caller]
fn version(machine: &Machine, header: &str) -> String {
    let page = get_with(machine.address, "tiny.localhost", "/page", &format!("{header}\r\n")).unwrap();
    page.split_whitespace().next().unwrap().to_owned()
}

/// The users who see the canary, each asked twice.
fn in_canary(machine: &Machine) -> BTreeSet<u32> {
    let sees = |user: &u32| {
        let header = format!("X-User: {user}");
        let first = version(machine, &header);
        assert_eq!(version(machine, &header), first, "user {user} flips between versions");
        first == "v2"
    };
    (0..USERS).filter(sees).collect()
}

/// What became of the copies since the last split began, as `kiln rollout show` tells.
fn copies(machine: &Machine, count: &str) -> u64 {
    let canaries = machine.json(&["rollout", "show"])["record"]["rollout"]["canaries"].clone();
    canaries[0]["copies"][count].as_u64().unwrap_or(0)
}

/// Waits until this step of the rollout runs, counted from 0.
fn wait_step(machine: &Machine, index: usize) {
    wait_for(&format!("step {index} runs"), || {
        let record = machine.json(&["rollout", "show"])["record"].clone();
        (record["rollout"]["steps"][index]["state"] == "running").then_some(())
    });
}

/// The places of the steps that hold.
fn holds(machine: &Machine) -> Vec<usize> {
    let steps = machine.json(&["rollout", "show", "--steps"])["steps"].clone();
    let steps = steps.as_array().unwrap().iter().map(|step| step.as_str().unwrap().to_owned());
    steps.enumerate().filter(|(_, text)| text.contains("hold")).map(|(index, _)| index).collect()
}

#[test]
fn testers_see_the_canary_users_stay_with_a_version_and_copies_reach_no_client() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, CANARY);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, CANARY);
    machine.kiln(&["up", "--detach"]).ok();
    let holds = holds(&machine);
    assert_eq!(holds.len(), 2, "{holds:?}");

    wait_step(&machine, holds[0]);
    let few = in_canary(&machine);
    assert!(!few.is_empty() && few.len() < USERS as usize, "{few:?}");
    for _ in 0..20 {
        assert_eq!(version(&machine, "X-Version: next"), "v2", "a tester sees the canary");
    }

    machine.kiln(&["rollout", "promote"]).ok();
    wait_step(&machine, holds[1]);
    let many = in_canary(&machine);
    assert!(few.is_subset(&many) && few.len() < many.len(), "users only come: {few:?}, then {many:?}");
    assert!(many.len() < USERS as usize, "{many:?}");

    // What the old version answers is copied to the new one, and its users got the old one's answer alone: they were all
    // asked above. A copy is counted after the answer that it is a copy of.
    let copied = 2 * (u64::from(USERS) - many.len() as u64);
    wait_for("every request to the old version is copied", || {
        let told: u64 = ["answered", "lost", "skipped"].iter().map(|count| copies(&machine, count)).sum();
        (told >= copied).then_some(())
    });
    assert!(copies(&machine, "answered") > 0);
    assert_eq!(copies(&machine, "differed"), 0);

    machine.kiln(&["rollout", "promote"]).ok();
    machine.wait_page("v2");
    wait_for("it takes over", || {
        let record = machine.json(&["rollout", "show"])["record"].clone();
        (record["rollout"]["ended"]["outcome"] == "completed").then_some(())
    });
    assert_eq!(in_canary(&machine).len(), USERS as usize, "everybody sees the new version");
}

/// Testers alone, until somebody lets it go on.
const TESTERS: &str = "rollout \"canary\" {
    step { shift = \"0%\" }
    step { approve = [] }
    step { shift = \"50%\" }
    step { approve = [] }

    match {
      header = \"X-Version\"
      equals = \"next\"
    }
  }";

#[test]
fn a_canary_without_a_share_is_seen_by_testers_alone() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, TESTERS);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 1, TESTERS);
    machine.kiln(&["up", "--detach"]).ok();
    let steps = machine.json(&["rollout", "show", "--steps"])["steps"].clone();
    let steps = steps.as_array().unwrap().iter().map(|step| step.as_str().unwrap().to_owned());
    let steps: Vec<String> = steps.collect();
    assert!(steps.iter().any(|step| step.contains("only the requests that are aimed at it")), "{steps:?}");
    let approvals: Vec<usize> = (0..steps.len()).filter(|at| steps[*at].contains("approval")).collect();
    assert_eq!(approvals.len(), 2, "{steps:?}");

    wait_step(&machine, approvals[0]);
    for _ in 0..40 {
        assert_eq!(version(&machine, "X-Version: other"), "v1", "who is no tester does not see it");
        assert_eq!(version(&machine, "X-Version: next"), "v2", "a tester sees it");
    }
    machine.kiln(&["rollout", "promote"]).ok();
    wait_step(&machine, approvals[1]);
    wait_for("others see it with its first share", || {
        (version(&machine, "X-Version: other") == "v2").then_some(())
    });
    machine.kiln(&["rollout", "promote"]).ok();
    machine.wait_page("v2");
}
