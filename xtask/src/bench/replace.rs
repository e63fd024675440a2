//! Switching traffic: a rollback to a warm revision, and ten replicas replaced, both under load.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::{Load, Plan, Report};
use super::machine::{Machine, tiny};
use super::table::Table;
use super::{installed, median, run_command};

const RATE: u32 = 2000;
/// Rounds of which the median is printed.
const ROUNDS: u32 = 7;
const PEER_PORT: u16 = 18_080;

/// From `kiln rollback` to the start of the last request that was sent to the revision that is left.
pub(super) fn rollback(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    for version in ["old", "new"] {
        machine.write_tiny(version, 3, "");
        machine.kiln(&["up"]).ok();
    }
    let (mut times, mut lost, mut answered) = (Vec::new(), 0, 0);
    for round in 0..ROUNDS {
        let left = if round % 2 == 0 { "new" } else { "old" };
        let load = Load::start(&machine.plan(RATE));
        std::thread::sleep(Duration::from_millis(700));
        let asked = Instant::now();
        machine.kiln(&["rollback"]).ok();
        std::thread::sleep(Duration::from_millis(700));
        let report = load.stop();
        times.extend(report.last_sent_to(left).map(|last| last.saturating_duration_since(asked)));
        lost += report.losses.len();
        answered += report.answers.len();
    }
    table.row("rollback to a warm revision: command to last request to the old one", median(times), None);
    table.fact("… requests lost", format!("{lost} of {answered}"), None);
    Ok(())
}

/// Ten replicas replaced: from the command to the start of the last request that was sent to an old one.
pub(super) fn replicas(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    machine.write_tiny("v1", 10, "");
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 10, "");
    // What is compared is the replacing: the peer's image is ready as well.
    machine.kiln(&["bake"]).ok();
    let ours = under_load(&machine.plan(RATE), || {
        machine.kiln(&["up"]).ok();
        Ok(())
    })?;
    let peer = if installed("crun") && installed("nginx") { Some(peer_replicas()?) } else { None };
    let beside = peer.as_ref().map(|(time, _)| ("crun + nginx script", *time));
    table.row("ten replicas replaced at 2,000 requests/s: switched", ours.0, beside);
    table.fact("… requests lost", ours.1, peer.map(|(_, lost)| lost));
    Ok(())
}

fn peer_replicas() -> Result<(Duration, String), String> {
    let folder = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench/peer_replace.sh");
    let run = |words: &[&str]| {
        run_command(Command::new("sh").arg(&script).arg(words[0]).arg(folder.path()).args(&words[1..]))
    };
    let tiny = tiny().to_string_lossy().into_owned();
    let result = run(&["start", &tiny, &PEER_PORT.to_string()]).and_then(|()| {
        let address = ([127, 0, 0, 1], PEER_PORT).into();
        let plan = Plan { address, host: "tiny.localhost".into(), rate: RATE, streams: 8, workers: 64 };
        under_load(&plan, || run(&["replace"]))
    });
    run(&["stop"])?;
    result
}

fn under_load(
    plan: &Plan,
    replace: impl FnOnce() -> Result<(), String>,
) -> Result<(Duration, String), String> {
    let load = Load::start(plan);
    std::thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    replace()?;
    std::thread::sleep(Duration::from_secs(3));
    let report: Report = load.stop();
    let last = report.last_sent_to("v1").ok_or("nothing was sent to the first version")?;
    let lost = format!("{} of {}", report.losses.len(), report.losses.len() + report.answers.len());
    Ok((last.saturating_duration_since(asked), lost))
}
