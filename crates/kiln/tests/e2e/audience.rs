//! Who sees a canary: testers always, a user the same version at every request, and copies nobody.

use std::collections::BTreeSet;

use kiln_edge::client::EdgeClient;
use kiln_model::route::{Group, Sampling};
use kiln_model::sample::GroupSamples;
use kiln_model::{EnvKey, EnvName, RolloutId, ServiceName, StackName};

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

/// What the edge counted of the canary since its split began.
fn counted(machine: &Machine, window: u32) -> GroupSamples {
    let rollout = machine.json(&["rollout", "show"])["record"]["rollout"]["id"].as_u64().unwrap();
    let (edge, _events) = EdgeClient::connect(&machine.state().join("run/edge.sock")).unwrap();
    let env = EnvKey { stack: StackName::new("tiny").unwrap(), env: EnvName::new("dev").unwrap() };
    let sampling = Sampling { rollout: RolloutId(rollout), window };
    let samples = edge.samples(&env, &ServiceName::new("tiny").unwrap(), sampling).unwrap();
    samples.and_then(|groups| groups.get(&Group::Canary).cloned()).unwrap_or_default()
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
    let mirrored = wait_for("every request to the old version is copied", || {
        let mirror = counted(&machine, 1).mirror;
        (mirror.answered + mirror.lost + mirror.skipped >= copied).then_some(mirror)
    });
    assert!(mirrored.answered > 0, "{mirrored:?}");
    assert_eq!(mirrored.differed, 0, "{mirrored:?}");

    machine.kiln(&["rollout", "promote"]).ok();
    machine.wait_page("v2");
    wait_for("it takes over", || {
        let record = machine.json(&["rollout", "show"])["record"].clone();
        (record["rollout"]["ended"]["outcome"] == "completed").then_some(())
    });
    assert_eq!(in_canary(&machine).len(), USERS as usize, "everybody sees the new version");
}
