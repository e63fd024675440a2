//! What makes going back unsafe.

use kiln_core::{Command, Reply, hazards};
use kiln_model::{Millis, RevisionNumber};

use super::shapes::{env, up};
use super::world::World;

fn go(world: &mut World, key: &str, words: &[&str]) {
    let decision = world.command(up(&env(key), words));
    assert!(matches!(decision.reply, Ok(Reply::RolloutStarted { .. })), "{:?}", decision.reply);
    world.wait(Millis::from_secs(60));
}

fn back(world: &mut World, to: u64) {
    let to = Some(RevisionNumber(to));
    world.command(Command::Rollback { env: env("dev"), to, service: None, careful: false });
    world.wait(Millis::from_secs(60));
}

fn found(world: &World, to: u64) -> Vec<String> {
    let found = hazards(&world.state, &env("dev"), RevisionNumber(to)).unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_volume_that_a_later_job_writes_to_is_a_hazard_for_who_mounts_it() {
    let mut world = World::new();
    let web = "web=v1+writes:data";
    go(&mut world, "dev", &[web, "seed=once1+job+writes:data"]);
    go(&mut world, "dev", &[web, "seed=once1+job+writes:data", "other=v1"]);
    assert_eq!(found(&world, 1), [""; 0], "the job is the same, so it did not run again");
    go(&mut world, "dev", &[web, "seed=once2+job+writes:data", "other=v1"]);
    let expected = "volume data, which web mounts, may have been changed by job seed of #3";
    assert_eq!((found(&world, 1), found(&world, 2)), (vec![expected.into()], vec![expected.into()]));
    assert_eq!(found(&world, 3), [""; 0], "it is there");
    // What ran on the volume since knows what became of it.
    back(&mut world, 2);
    go(&mut world, "dev", &[web, "other=v4"]);
    assert_eq!(found(&world, 2), [""; 0]);
    assert_eq!(found(&world, 1), [expected]);
}

#[test]
fn who_writes_to_a_volume_with_another_spec_is_a_hazard_and_who_only_reads_is_none() {
    let mut world = World::new();
    go(&mut world, "dev", &["web=v1+reads:data", "db=v1+writes:data"]);
    go(&mut world, "dev", &["web=v2+reads:data", "db=v1+writes:data"]);
    assert_eq!(found(&world, 1), [""; 0]);
    go(&mut world, "dev", &["web=v2+reads:data", "db=v2+writes:data"]);
    let expected = ["db", "web"]
        .map(|who| format!("volume data, which {who} mounts, is written to by db of #3 as well"));
    assert_eq!(found(&world, 1), expected);
    let all = hazards(&world.state, &env("dev"), RevisionNumber(1)).unwrap();
    let endangered: Vec<&str> = all.iter().map(|hazard| hazard.service().unwrap().as_str()).collect();
    assert_eq!(endangered, ["db", "web"]);
}

#[test]
fn what_a_rollout_moves_to_writes_already() {
    let mut world = World::new();
    go(&mut world, "dev", &["db=v1+writes:data"]);
    go(&mut world, "dev", &["db=v1+writes:data", "web=v1"]);
    world.command(up(&env("dev"), &["db=sick+writes:data"]));
    world.run();
    for number in [1, 2] {
        assert_eq!(
            found(&world, number),
            ["volume data, which db mounts, is written to by db of #3 as well"]
        );
    }
    assert_eq!(found(&world, 3), [""; 0]);
}

#[test]
fn a_route_that_another_environment_took_meanwhile_is_a_hazard() {
    let mut world = World::new();
    go(&mut world, "dev", &["web=v1+route:8080"]);
    go(&mut world, "dev", &["web=v2"]);
    assert_eq!(found(&world, 1), [""; 0]);
    go(&mut world, "blog/dev", &["web=v1+route:8080"]);
    assert_eq!(found(&world, 1), ["blog/dev answers for 127.0.0.1:8080 by now"]);
    assert_eq!(hazards(&world.state, &env("dev"), RevisionNumber(9)), None, "it is not retained");
}
