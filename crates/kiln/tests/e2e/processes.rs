//! The processes of one machine's instances, found in /proc by the cgroup that bears the machine's id.

use std::fs;

use crate::machine::Machine;

/// The pids of the instances' inits: pid 1 of their own namespace.
pub fn inits(machine: &Machine) -> Vec<i32> {
    of_instances(machine, |pid| {
        let status = read(pid, "status");
        let inner = status.lines().find(|line| line.starts_with("NSpid:"));
        let is_first =
            inner.is_some_and(|line| line.split_whitespace().count() == 3 && line.ends_with("\t1"));
        is_first && !status.contains("State:\tZ")
    })
}

/// The pids of the static servers inside.
pub fn servers(machine: &Machine) -> Vec<i32> {
    of_instances(machine, |pid| {
        fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default().ends_with("tiny")
    })
}

/// The pids of the static servers of one version.
pub fn servers_of(machine: &Machine, version: &str) -> Vec<i32> {
    let is_of = |pid: &i32| read(*pid, "environ").split('\0').any(|it| it == format!("VERSION={version}"));
    servers(machine).into_iter().filter(is_of).collect()
}

fn of_instances(machine: &Machine, wanted: impl Fn(i32) -> bool) -> Vec<i32> {
    let id = fs::read_to_string(machine.state().join("id")).unwrap();
    let group = format!("kiln-{}/", id.trim());
    let pids = fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut pids: Vec<i32> =
        pids.filter(|pid| read(*pid, "cgroup").contains(&group) && wanted(*pid)).collect();
    pids.sort_unstable();
    pids
}

fn read(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}
