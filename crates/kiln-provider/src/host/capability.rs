//! Which capabilities an instance may ever have.

use kiln_model::instance::Security;

/// By number, from linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's default set less MKNOD (which Docker hedges with a device filter), NET_RAW (which can forge a neighbour's packets on
/// the bridge) and AUDIT_WRITE.
const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities of one instance, as bits by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    /// All that may ever be had.
    pub(crate) bounding: u64,
    /// Those that the spec added.
    pub(crate) added: u64,
}

/// Lays the spec's changes over the default set. What is both dropped and added is there: `drop ALL, add X` leaves X.
pub(crate) fn grant(security: &Security) -> Result<Granted, String> {
    let drops_all = security.drop_capabilities.contains("ALL");
    let mut bounding = 0;
    for name in DEFAULT.iter().filter(|_| !drops_all) {
        bounding |= bit(name)?;
    }
    for name in security.drop_capabilities.iter().filter(|name| *name != "ALL") {
        bounding &= !bit(name)?;
    }
    let mut added = 0;
    for name in &security.add_capabilities {
        added |= bit(name)?;
    }
    Ok(Granted { bounding: bounding | added, added })
}

/// Whether a set holds a capability.
pub(crate) fn has(set: u64, name: &str) -> bool {
    bit(name).is_ok_and(|bit| set & bit != 0)
}

fn bit(name: &str) -> Result<u64, String> {
    let position = NAMES.iter().position(|known| *known == name);
    position.map(|number| 1 << number).ok_or_else(|| format!("there is no capability `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(add: &[&str], drop: &[&str]) -> Security {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Security { add_capabilities: set(add), drop_capabilities: set(drop) }
    }

    #[test]
    fn the_default_set_is_smaller_than_dockers() {
        assert_eq!(grant(&Security::default()).unwrap().bounding.count_ones(), 11);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(grant(&security(&["NET_BIND_SERVICE"], &["ALL"])).unwrap().bounding, 1 << 10);
        assert!(!has(grant(&security(&[], &["CHOWN"])).unwrap().bounding, "CHOWN"));
        assert!(has(grant(&security(&["NET_ADMIN"], &[])).unwrap().added, "NET_ADMIN"));
        assert!(grant(&security(&["FLY"], &[])).is_err());
    }
}
