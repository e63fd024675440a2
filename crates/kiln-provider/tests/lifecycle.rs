//! The life of an instance, on this kernel.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use std::os::unix::process::CommandExt;
use std::process::Command;

use kiln_model::Millis;
use kiln_model::instance::{ExitStatus, InstanceSpec};
use kiln_provider::{Provider, ProviderError};
use world::{HOST_PROGRAM, World, eventually, fresh_id, lines, request, spec};

#[test]
fn an_instance_starts_is_listed_says_something_and_ends() {
    let world = World::new();
    let id = world.run(&["say", "hello"]);
    let address = world.started(id);
    assert_eq!(world.exited(id), ExitStatus::Code(0));
    let listed = world.host().list().unwrap().instances;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].address, listed[0].exited), (Some(address), Some(ExitStatus::Code(0))));
    eventually("the log is read", || lines(world.host(), id).len() == 2);
    let mut said = lines(world.host(), id);
    said.sort();
    assert_eq!(said, ["hello", "hello on stderr"]);
    world.destroy(id, Millis(0));
    world.destroyed(id);
    assert!(world.host().list().unwrap().instances.is_empty());
    assert!(!world.instance_folder(id).exists());
    assert_eq!(lines(world.host(), id).len(), 2, "the log outlives the instance for a while");
}

#[test]
fn the_exit_status_is_the_programs() {
    let world = World::new();
    for (argv, expected) in [
        (&["exit", "0"][..], ExitStatus::Code(0)),
        (&["exit", "42"], ExitStatus::Code(42)),
        (&["exit", "255"], ExitStatus::Code(255)),
        (&["abort"], ExitStatus::Signal(6)),
        (&["orphans"], ExitStatus::Code(0)),
    ] {
        let id = world.run(argv);
        assert_eq!(world.exited(id), expected, "{argv:?}");
    }
}

#[test]
fn what_can_never_start_is_refused_with_the_reason() {
    let world = World::new();
    let with = |change: fn(&mut InstanceSpec)| {
        let mut spec = spec(&[]);
        change(&mut spec);
        world.refused(world.create(spec))
    };
    for (reason, expected) in [
        (with(|s| s.argv = vec!["/absent".into()]), "`/absent` does not exist in the image"),
        (with(|s| s.argv = vec!["absent".into()]), "does not exist in the image's PATH"),
        (with(|s| s.argv = vec!["/etc/passwd".into()]), "not executable"),
        (with(|s| s.argv = vec!["/not-a-program".into()]), "not a program for this machine"),
        (with(|s| s.argv = vec!["/no-interpreter".into()]), "interpreter"),
        (with(|s| s.user = "nobody".into()), "user `nobody` is not in the image"),
        (with(|s| s.workdir = "/absent".into()), "working folder /absent"),
        (with(|s| s.image = kiln_model::Digest::new([9; 32])), "there is no image"),
        (with(|s| _ = s.security.add_capabilities.insert("FLY".into())), "no capability `FLY`"),
        (with(|s| _ = s.volumes.insert("/app/x".into(), volume("data"))), "/app/x"),
    ] {
        assert!(reason.contains(expected), "{reason}");
    }
}

fn volume(name: &str) -> kiln_model::instance::VolumeMount {
    kiln_model::instance::VolumeMount { volume: name.parse().unwrap(), read_only: false }
}

#[test]
fn a_refused_instance_is_listed_and_can_be_destroyed() {
    let world = World::new();
    let mut spec = spec(&[]);
    spec.argv = vec!["/absent".into()];
    let id = world.create(spec);
    let reason = world.refused(id);
    let listed = world.host().list().unwrap().instances;
    assert_eq!((listed[0].address, listed[0].refused.as_ref()), (None, Some(&reason)));
    world.destroy(id, Millis(0));
    world.destroyed(id);
    assert!(!world.instance_folder(id).exists());
}

#[test]
fn the_program_runs_as_its_user_in_its_folder_with_its_environment() {
    let world = World::new();
    let mut who = spec(&["who"]);
    who.argv[0] = "in-path".into();
    who.user = "web".into();
    who.workdir = "/etc".into();
    let id = world.create(who);
    world.exited(id);
    let said = world.log(id);
    assert!(said.contains(&format!("uid=33 gid=44 pid=2 cwd=/etc host=web-{id}")), "{said}");

    let mut env = spec(&["env"]);
    env.env.insert("GREETING".into(), "hello you".into());
    env.user = "web".into();
    let said = world.output(env);
    for line in ["GREETING=hello you", "HOME=/home/web", "PATH=/usr/local/sbin"] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn a_polite_program_gets_its_signal_and_the_time_to_finish() {
    let world = World::new();
    let id = world.run(&["polite"]);
    eventually("it is ready", || lines(world.host(), id).contains(&"ready".into()));
    world.destroy(id, Millis(60_000));
    assert_eq!(world.exited(id), ExitStatus::Code(7));
    world.destroyed(id);
    assert_eq!(lines(world.host(), id), ["ready", "finishing"]);
}

#[test]
fn a_program_that_ignores_its_signal_is_killed_when_its_grace_is_over() {
    let world = World::new();
    let id = world.run(&["stubborn"]);
    eventually("it is ready", || lines(world.host(), id).contains(&"ready".into()));
    world.destroy(id, Millis(150));
    world.destroyed(id);
}

#[test]
fn a_repeated_create_gives_the_same_answer_and_tells_again_what_was_told() {
    let world = World::new();
    let id = fresh_id();
    world.host().create(&request(id, spec(&["sleep"]))).unwrap();
    let address = world.started(id);
    world.host().create(&request(id, spec(&["sleep"]))).unwrap();
    assert_eq!(world.started(id), address);
    let other = world.host().create(&request(id, spec(&["exit", "1"])));
    assert!(matches!(other, Err(ProviderError::Refused { .. })), "{other:?}");
    assert_eq!(world.host().list().unwrap().instances.len(), 1);
}

#[test]
fn an_instance_that_is_destroyed_before_it_ran_is_gone() {
    let world = World::new();
    for _ in 0..10 {
        let id = world.run(&["sleep"]);
        world.destroy(id, Millis(0));
        world.destroyed(id);
    }
    assert!(world.host().list().unwrap().instances.is_empty());
}

#[test]
fn who_is_not_root_is_told_so() {
    let world = World::without_host();
    let output = Command::new(HOST_PROGRAM)
        .arg(world.state())
        .arg(world.images())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("NotRoot"), "{said}");
}

#[test]
fn a_state_folder_has_one_host() {
    let world = World::new();
    let output = Command::new(HOST_PROGRAM).arg(world.state()).arg(world.images()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Running"));
}
