//! Starting an instance, and what a hundred of them cost.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::machine::Machine;
use super::median;
use super::table::Table;
use crate::cargo::cargo;

const CROWD: u32 = 100;
/// What a supervisor frees after a start is not what it costs.
const SETTLE: Duration = Duration::from_secs(5);

/// From the action to the first instruction inside, beside crun: the provider's own example measures both.
pub(super) fn instances(table: &mut Table) -> Result<(), String> {
    let mut command: Command = cargo();
    command.args(["run", "--release", "--locked", "--quiet", "--package", "kiln-provider"]);
    let output = command
        .args(["--example", "spawn_bench"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run the provider's bench: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("the provider's bench failed:\n{text}"));
    }
    let rows = [
        ("one", "action to first instruction in the instance"),
        ("crowd", "100 instances at once: all started"),
    ];
    for (name, what) in rows {
        let ours = samples(&text, &format!("kiln {name}"))
            .ok_or_else(|| format!("no figure `{name}` in:\n{text}"))?;
        let peer = samples(&text, &format!("crun {name}"));
        table.row(what, median(ours), peer.map(|times| ("crun, no network or cgroup", median(times))));
    }
    Ok(())
}

/// Reads the line `NAME TAB MICROSECONDS,MICROSECONDS…`.
fn samples(text: &str, name: &str) -> Option<Vec<Duration>> {
    let (_, list) =
        text.lines().filter_map(|line| line.split_once('\t')).find(|(first, _)| *first == name)?;
    list.split(',').map(|micros| Some(Duration::from_micros(micros.parse().ok()?))).collect()
}

/// What the host and the inits of a hundred instances take beyond what the host takes with none.
pub(super) fn memory(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    machine.write_tiny("v1", 0, "");
    machine.kiln(&["up"]).ok();
    std::thread::sleep(SETTLE);
    let without = supervision_kib(&machine)?;
    machine.kiln(&["scale", &format!("tiny={CROWD}")]).ok();
    std::thread::sleep(SETTLE);
    let with = supervision_kib(&machine)?;
    let each = with.saturating_sub(without) / u64::from(CROWD);
    table.fact(
        "memory of host and inits: 100 instances less none (Pss)",
        format!("{} KiB", with.saturating_sub(without)),
        None,
    );
    table.fact("… for each instance", format!("{each} KiB"), None);
    Ok(())
}

/// The proportional memory of the host and of what it keeps beside the instances' programs: zygote, launchers, inits.
fn supervision_kib(machine: &Machine) -> Result<u64, String> {
    let host = machine.pid("host");
    let mut total = 0;
    let mut family = vec![host];
    let others = [machine.pid("edge"), machine.pid("controller")];
    let children = children()?;
    while let Some(pid) = family.pop() {
        let process = Path::new("/proc").join(pid.to_string());
        // An instance's own program is not Kiln's.
        let Ok(program) = fs::read_link(process.join("exe")) else { continue };
        if others.contains(&pid)
            || program != fs::read_link(format!("/proc/{host}/exe")).map_err(|e| e.to_string())?
        {
            continue;
        }
        total += pss_kib(&process).unwrap_or(0);
        family.extend(children.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
    }
    Ok(total)
}

fn children() -> Result<Vec<(i32, i32)>, String> {
    let entries = fs::read_dir("/proc").map_err(|error| error.to_string())?;
    Ok(entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may hold spaces and parentheses: what follows the last one is state and parent.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect())
}

fn pss_kib(process: &Path) -> Option<u64> {
    let text = fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}
