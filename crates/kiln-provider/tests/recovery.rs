//! What is promised when something is killed.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use std::fs;
use std::process::Command;
use std::time::Duration;

use kiln_model::instance::ExitStatus;
use kiln_model::{InstanceId, Millis, Term};
use kiln_provider::{Cursor, DestroyRequest, Provider, ProviderError, Transition, Watched};
use rustix::process::{Pid, Signal, kill_process};
use world::{World, eventually, fence, fresh_id, is_tombstoned, lines, request, spec};

fn init_pid(world: &World, id: InstanceId) -> i32 {
    let text = fs::read_to_string(world.instance_folder(id).join("init")).unwrap();
    let digits = text.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
    digits.unwrap().parse().unwrap()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn an_older_term_is_refused_also_by_the_next_host() {
    let mut world = World::new();
    let id = fresh_id();
    let mut later = request(id, spec(&["sleep"]));
    later.fence = fence(7);
    world.host().create(&later).unwrap();
    for _ in 0..2 {
        let refused = world.host().create(&request(fresh_id(), spec(&["sleep"])));
        assert!(
            matches!(refused, Err(ProviderError::Fenced { asked: Term(1), seen: Term(7) })),
            "{refused:?}"
        );
        let late = DestroyRequest { id, fence: fence(6), grace: Millis(0) };
        assert!(matches!(world.host().destroy(&late), Err(ProviderError::Fenced { .. })));
        world.stop();
        world.start();
    }
    assert_eq!(world.host().list().unwrap().instances.len(), 1);
}

#[test]
fn what_was_destroyed_is_never_created_again_also_by_the_next_host() {
    let mut world = World::new();
    let ran = world.run(&["sleep"]);
    world.started(ran);
    let never = fresh_id();
    for id in [ran, never] {
        world.destroy(id, Millis(0));
        world.destroyed(id);
    }
    for _ in 0..2 {
        for id in [ran, never] {
            assert!(is_tombstoned(&world.host().create(&request(id, spec(&["sleep"])))));
            // Asked again, it is told again: the first answer may have been lost.
            world.destroy(id, Millis(0));
            world.destroyed(id);
        }
        world.stop();
        world.start();
    }
}

#[test]
fn a_killed_host_ends_no_instance_and_the_next_one_adopts_it() {
    let mut world = World::without_host();
    let mut process = world.start_process();
    let client = world.client();
    let (stays, ends) = (fresh_id(), fresh_id());
    client.create(&request(stays, spec(&["chatter", "1000"]))).unwrap();
    client.create(&request(ends, spec(&["last-words", "600"]))).unwrap();
    let address = |id| {
        let listed = client.list().unwrap().instances;
        listed.into_iter().find(|i| i.id == id).and_then(|i| i.address)
    };
    eventually("both run", || address(stays).is_some() && address(ends).is_some());
    let (before, pid) = (address(stays), init_pid(&world, stays));
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(client.list().is_err());

    let exit = world.instance_folder(ends).join("exit");
    eventually("its init writes down how it ended", || exit.exists());
    world.start();
    let listed = world.host().list().unwrap().instances;
    let of = |id| listed.iter().find(|i| i.id == id).unwrap();
    assert_eq!((of(stays).address, of(stays).exited, of(stays).healthy), (before, None, Some(true)));
    assert_eq!(init_pid(&world, stays), pid, "it is the same process");
    let ended = |id| {
        world
            .host()
            .list()
            .unwrap()
            .instances
            .iter()
            .any(|i| i.id == id && i.exited == Some(ExitStatus::Code(3)))
    };
    eventually("its end is noticed", || ended(ends));
    eventually("its last words are read", || lines(world.host(), ends).contains(&"last words".to_owned()));

    // What it says now is read by the new host, and no line is missing.
    let count = lines(world.host(), stays).len();
    eventually("it goes on to be read", || lines(world.host(), stays).len() > count + 50);
    for (number, line) in lines(world.host(), stays).into_iter().enumerate() {
        assert_eq!(line, format!("line {number}"));
    }
    world.destroy(stays, Millis(0));
    world.destroyed(stays);
}

#[test]
fn an_instance_whose_host_was_killed_while_it_made_its_files_is_made_anew() {
    let mut world = World::new();
    let id = world.run(&["sleep"]);
    world.started(id);
    world.stop();
    // What a host leaves that is killed between an init's first file and its own last one: the init waits for its word, and
    // ends without it.
    let folder = world.instance_folder(id);
    let half_made = init_pid(&world, id);
    kill(half_made, Signal::KILL);
    for made_later in ["reader.lock", "stderr"] {
        fs::remove_file(folder.join(made_later)).unwrap();
    }
    fs::remove_dir_all(folder.join("log")).unwrap();
    world.start();
    let runs = || {
        let listed = world.host().list().unwrap().instances;
        listed.iter().any(|i| i.id == id && i.exited.is_none() && i.healthy == Some(true))
    };
    eventually("it runs", runs);
    assert_ne!(init_pid(&world, id), half_made);
}

#[test]
fn hosts_that_are_killed_while_they_read_lose_no_line_and_repeat_none() {
    let mut world = World::without_host();
    let client = world.client();
    let id = fresh_id();
    // 64 bytes a line, sixteen times what a pipe holds: every kill finds the host in the middle of it, or the pipe full.
    for kills in 0..5 {
        let mut process = world.start_process();
        if kills == 0 {
            client.create(&request(id, spec(&["flood", "16384"]))).unwrap();
        }
        eventually("it runs", || client.list().unwrap().instances[0].address.is_some());
        process.kill().unwrap();
        process.wait().unwrap();
    }
    world.start();
    eventually("all of it is read", || lines(world.host(), id).len() >= 16_384);
    let said = lines(world.host(), id);
    assert_eq!(said.len(), 16_384);
    assert!(said.iter().enumerate().all(|(number, line)| *line == format!("{number:063}")));
    world.destroy(id, Millis(0));
    world.destroyed(id);
}

#[test]
fn an_init_that_is_killed_takes_its_program_with_it_and_nobody_saw_how_it_ended() {
    let world = World::new();
    let id = world.run(&["stubborn"]);
    world.started(id);
    kill(init_pid(&world, id), Signal::KILL);
    assert_eq!(world.exited(id), ExitStatus::Unknown);
    world.destroy(id, Millis(60_000));
    world.destroyed(id);
}

#[test]
fn an_init_that_is_stopped_is_destroyed_all_the_same() {
    let world = World::new();
    let id = world.run(&["polite"]);
    world.started(id);
    kill(init_pid(&world, id), Signal::STOP);
    world.destroy(id, Millis(100));
    world.destroyed(id);
}

#[test]
fn a_killed_zygote_ends_no_instance_and_there_is_another_one() {
    let world = World::new();
    let before = world.run(&["sleep"]);
    world.started(before);
    let zygote = world.host().zygote_pid().unwrap();
    kill(zygote as i32, Signal::KILL);
    // More than there are launchers that were made before.
    let after: Vec<_> = (0..12).map(|_| world.run(&["exit", "4"])).collect();
    after.into_iter().for_each(|id| assert_eq!(world.exited(id), ExitStatus::Code(4)));
    eventually("there is another zygote", || world.host().zygote_pid().is_some_and(|pid| pid != zygote));
    let listed = world.host().list().unwrap().instances;
    assert_eq!(listed.iter().find(|i| i.id == before).unwrap().exited, None);
    world.destroy(before, Millis(0));
    world.destroyed(before);
}

#[test]
fn what_was_accepted_and_not_done_is_done_by_the_next_host() {
    let mut world = World::new();
    let (starts, goes) = (fresh_id(), world.run(&["sleep"]));
    world.started(goes);
    world.stop();
    // A host that was killed right after it accepted left this behind, and no more.
    let folder = world.instance_folder(starts);
    let record = fs::read_to_string(world.instance_folder(goes).join("record.json")).unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("record.json"), record.replace(goes.as_str(), starts.as_str())).unwrap();
    let mut tombstones = fs::read_to_string(world.state().join("host/tombstones")).unwrap_or_default();
    tombstones.push_str(&format!("{goes}\n"));
    fs::write(world.state().join("host/tombstones"), tombstones).unwrap();
    world.start();
    world.started(starts);
    world.destroyed(goes);
}

#[test]
fn what_carries_this_kilns_name_and_belongs_to_nothing_is_swept() {
    let mut world = World::new();
    let lost = world.run(&["sleep"]);
    world.started(lost);
    let beside = World::new();
    let stays = beside.run(&["sleep"]);
    beside.started(stays);
    world.stop();
    fs::remove_dir_all(world.instance_folder(lost)).unwrap();
    let group = format!("kiln-{}/{lost}", world.state_id());
    let link = format!("/sys/class/net/k{}{lost}", world.state_id());
    let mut groups: Vec<_> = ["unified", "memory", "cpu", "pids", ""]
        .map(|tree| std::path::Path::new("/sys/fs/cgroup").join(tree).join(&group))
        .into_iter()
        .filter(|path| path.exists())
        .collect();
    groups.push(link.into());
    assert!(groups.len() > 1);
    world.start();
    assert!(groups.iter().all(|path| !path.exists()), "{groups:?}");
    assert!(beside.host().list().unwrap().instances[0].exited.is_none());
    assert!(std::path::Path::new(&format!("/sys/class/net/k{}{stays}", beside.state_id())).exists());
}

#[test]
fn a_controller_that_comes_back_misses_nothing() {
    let mut world = World::without_host();
    let mut process = world.start_process();
    let client = world.client();
    let id = fresh_id();
    let mut watch = client.watch(Cursor::default()).unwrap();
    let first = watch.next(Duration::from_secs(30)).unwrap();
    let Some(Watched::Relist { mut cursor }) = first else { panic!("{first:?}") };
    client.create(&request(id, spec(&["exit", "6"]))).unwrap();
    drop(watch);
    let mut seen = Vec::new();
    while !seen.contains(&Transition::Exited { status: ExitStatus::Code(6) }) {
        // A new connection for every single transition.
        let mut watch = client.watch(cursor).unwrap();
        match watch.next(Duration::from_secs(30)).unwrap().unwrap() {
            Watched::Transition { cursor: next, transition, .. } => {
                (cursor, _) = (next, seen.push(transition));
            }
            other @ Watched::Relist { .. } => panic!("{other:?}"),
        }
    }
    assert!(matches!(seen[0], Transition::Started { .. }), "{seen:?}");
    process.kill().unwrap();
    process.wait().unwrap();
    let mut process = world.start_process();
    let mut watch = client.watch(cursor).unwrap();
    assert!(matches!(watch.next(Duration::from_secs(30)).unwrap(), Some(Watched::Relist { .. })));
    assert_eq!(client.list().unwrap().instances[0].exited, Some(ExitStatus::Code(6)));
    assert!(matches!(client.logs(fresh_id(), Default::default(), true), Err(ProviderError::Unknown(_))));
    assert!(client.capabilities().unwrap().subnet.ends_with("/20"));
    process.kill().unwrap();
    process.wait().unwrap();
    world.start();
}

#[test]
fn only_root_may_ask() {
    let world = World::new();
    let socket = world.state().join("run/host.sock");
    // Others can't even open it; who could, is told by the kernel's word who it is.
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for path in [world.folder.path().to_owned(), world.state(), world.state().join("run"), socket.clone()] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(path, open).unwrap();
    }
    use std::os::unix::process::CommandExt;
    let folder = world::program().parent().unwrap();
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output =
        Command::new(world::program()).arg("hear").arg(&socket).uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("only root may ask"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_record_of_another_version_ends_no_instance() {
    let mut world = World::new();
    let id = world.run(&["sleep"]);
    world.started(id);
    let pid = init_pid(&world, id);
    world.stop();
    let path = world.instance_folder(id).join("record.json");
    let record = fs::read_to_string(&path).unwrap();
    assert!(record.contains("\"version\":1"), "{record}");
    fs::write(&path, record.replace("\"version\":1", "\"version\":7")).unwrap();
    let start = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.start()));
    assert!(start.is_err(), "a host that does not understand a record does not start");
    assert!(fs::exists(format!("/proc/{pid}/root")).unwrap(), "and what runs goes on");
    fs::write(&path, record).unwrap();
    world.start();
    assert_eq!(init_pid(&world, id), pid);
    world.destroy(id, Millis(0));
    world.destroyed(id);
}
