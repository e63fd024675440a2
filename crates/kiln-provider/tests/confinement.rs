//! What an instance can't do, tried from inside.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use std::fs;

use kiln_model::instance::{ExitStatus, SecretRef, VolumeMount};
use kiln_model::{ByteSize, Millis};
use kiln_provider::Provider;
use world::{World, eventually, lines, spec};

#[test]
fn the_filter_is_applied_and_refuses_what_it_should() {
    let world = World::new();
    let said = world.output(spec(&["syscalls"]));
    for line in [
        "keyctl EPERM",
        "unshare EPERM",
        "mount EPERM",
        "clone3 ENOSYS",
        "bpf EPERM",
        "vsock EPERM",
        "mkdir allowed",
        "mknod EPERM",
    ] {
        assert!(said.lines().any(|l| l == line), "{line}: {said}");
    }
}

#[test]
fn the_kernel_says_that_the_program_is_confined() {
    let world = World::new();
    let said = world.output(spec(&["cat", "/proc/self/status"]));
    let field = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in {said}")).to_owned()
    };
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("Seccomp_filters"), "2");
    assert_eq!(field("NoNewPrivs"), "1");
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(field(set), "00000000800405fb", "{set}");
    }
    assert_eq!((field("CapInh"), field("CapAmb")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!(field("SigBlk"), "0".repeat(16));
    assert_eq!(field("SigIgn"), "0".repeat(16));
}

#[test]
fn another_user_has_only_the_capabilities_that_were_added() {
    let world = World::new();
    let mut plain = spec(&["cat", "/proc/self/status"]);
    plain.user = "web".into();
    plain.security.drop_capabilities.insert("ALL".into());
    let mut with = plain.clone();
    with.security.add_capabilities.insert("NET_BIND_SERVICE".into());
    let said = world.output(plain);
    assert!(
        said.contains("CapEff:\t0000000000000000") && said.contains("CapBnd:\t0000000000000000"),
        "{said}"
    );
    assert!(said.contains("Groups:\t99"), "{said}");
    let said = world.output(with);
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert!(said.contains(&format!("{set}:\t0000000000000400")), "{set}: {said}");
    }
}

#[test]
fn the_root_and_the_kernels_switches_can_t_be_written_and_memory_can() {
    let world = World::new();
    let said = world.output(spec(&[
        "write",
        "/x",
        "/etc/hosts",
        "/dev/x",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/x",
        "/tmp/x",
        "/run/x",
        "/dev/shm/x",
        "/dev/null",
    ]));
    for path in ["/x", "/etc/hosts", "/dev/x", "/proc/sys/kernel/hostname"] {
        assert!(said.contains(&format!("{path}: Read-only file system")), "{path}: {said}");
    }
    for path in ["/sys/x", "/proc/sysrq-trigger"] {
        assert!(!said.contains(&format!("{path}: written")), "{said}");
    }
    for path in ["/tmp/x", "/run/x", "/dev/shm/x", "/dev/null"] {
        assert!(said.contains(&format!("{path}: written")), "{path}: {said}");
    }
}

#[test]
fn nothing_of_the_hosts_files_is_in_sight_and_kernel_memory_is_masked() {
    let world = World::new();
    let said = world.output(spec(&["cat", "/proc/self/mountinfo"]));
    let points: Vec<&str> = said.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for point in
        ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/tmp", "/run", "/etc/hosts"]
    {
        assert!(points.contains(&point), "{point}: {said}");
    }
    assert!(points.iter().all(|p| !p.starts_with("/var") && !p.contains("kiln")), "{said}");
    let root = said.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.contains("ro,") && root.contains("nodev"), "{root}");
    for masked in
        ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/sys/firmware", "/proc/acpi"]
    {
        assert_eq!(points.contains(&masked), fs::exists(masked).unwrap(), "{masked}: {said}");
    }
    let id = world.run(&["access", "/dev/null", "/dev/ptmx", "/dev/fd/0", "/dev/tty"]);
    assert_eq!(world.exited(id), ExitStatus::Code(0));
}

#[test]
fn a_secret_is_a_file_for_its_user_alone_and_in_no_file_of_the_host() {
    let world = World::new();
    fs::write(world.images().join("secrets/v1"), "hunter2-value").unwrap();
    let mut with = spec(&["who", "/run/secrets/db", "/etc/app/key"]);
    with.user = "web".into();
    let secret = SecretRef { name: "db".parse().unwrap(), version: "v1".into() };
    with.secrets.insert("/run/secrets/db".into(), secret.clone());
    with.secrets.insert("/etc/app/key".into(), secret);
    let said = world.output(with.clone());
    assert!(said.contains("/run/secrets/db mode=400 uid=33"), "{said}");
    assert!(said.contains("/etc/app/key mode=400 uid=33"), "{said}");

    with.argv = ["/app", "cat", "/run/secrets/db", "/etc/app/key"].map(str::to_owned).to_vec();
    let id = world.create(with.clone());
    world.exited(id);
    let leaks = grep(&world.state(), b"hunter2-value");
    assert!(leaks.iter().all(|path| path.contains("/log/")), "{leaks:?}");
    assert_eq!(world.log(id), "hunter2-valuehunter2-value");

    with.argv = ["/app", "write", "/run/secrets/db"].map(str::to_owned).to_vec();
    assert!(!world.output(with).contains("written"));
}

fn grep(folder: &std::path::Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(grep(&entry.path(), needle));
        } else if kind.is_file()
            && fs::read(entry.path()).unwrap_or_default().windows(needle.len()).any(|w| w == needle)
        {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[test]
fn a_volume_keeps_what_is_written_and_scratch_is_bounded_memory() {
    let world = World::new();
    let mut with = spec(&["write", "/data/kept", "/work/gone"]);
    let volume = |read_only| VolumeMount { volume: "data".parse().unwrap(), read_only };
    with.volumes.insert("/data".into(), volume(false));
    with.scratch.insert("/work".into(), ByteSize::from_mib(1));
    let said = world.output(with.clone());
    assert!(said.contains("/data/kept: written") && said.contains("/work/gone: written"), "{said}");
    assert_eq!(fs::read(world.state().join("volumes/shop/dev/data/kept")).unwrap(), b"x");

    with.volumes.insert("/data".into(), volume(true));
    let said = world.output(with.clone());
    assert!(said.contains("/data/kept: Read-only file system"), "{said}");
    with.argv = ["/app", "cat", "/proc/self/mountinfo"].map(str::to_owned).to_vec();
    let said = world.output(with);
    let scratch = said.lines().find(|line| line.split(' ').nth(4) == Some("/work")).unwrap();
    assert!(scratch.contains("size=1024k"), "{scratch}");
}

#[test]
fn a_program_that_takes_too_much_memory_is_ended_and_that_is_told() {
    let world = World::new();
    let mut with = spec(&["oom"]);
    with.limits.memory = Some(ByteSize::from_mib(32));
    assert_eq!(world.exited(world.create(with)), ExitStatus::OutOfMemory);
}

#[test]
fn a_fork_bomb_ends_at_the_limit_and_can_be_destroyed() {
    let world = World::new();
    let mut with = spec(&["bomb"]);
    with.limits.pids = 40;
    let id = world.create(with);
    world.started(id);
    eventually("it bombs", || lines(world.host(), id).contains(&"bombing".into()));
    let beside = world.run(&["exit", "5"]);
    assert_eq!(world.exited(beside), ExitStatus::Code(5));
    world.destroy(id, Millis(100));
    world.destroyed(id);
}

#[test]
fn this_host_says_which_limits_it_can_t_enforce() {
    let world = World::new();
    let capabilities = world.host().capabilities().unwrap();
    assert!(capabilities.isolation.contains("cgroup"), "{capabilities:?}");
    assert!(capabilities.unenforced.is_empty(), "{capabilities:?}");
    assert_eq!(capabilities.instances_max, 1023);
}
