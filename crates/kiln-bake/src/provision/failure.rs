//! Why a playbook failed, in the words of the stack: what the driver printed, with the places of the stack folder.

use kiln_model::recipe::ProvisionStep;
use serde_json::Value;

use super::{FailedTask, PLAYBOOKS, ProvisionError};
use crate::bake_error::StepError;
use crate::sandbox::SandboxError;
use crate::workbench::WorkError;

/// What the driver's last line begins with.
const MARK: &str = "kiln-provision: ";

/// Modules that fetch something, or ask a package manager which would.
const FETCHING: [&str; 15] = [
    "apk",
    "apt",
    "apt_key",
    "apt_repository",
    "dnf",
    "gem",
    "get_url",
    "git",
    "npm",
    "package",
    "pip",
    "subversion",
    "uri",
    "yum",
    "yum_repository",
];

/// Modules that talk to what runs.
const SERVING: [&str; 5] = ["service", "service_facts", "systemd", "systemd_service", "sysvinit"];

/// Tells a failure of the driver as the failure of a task; what is another is left as it is.
pub(crate) fn explain(error: StepError, step: &ProvisionStep) -> StepError {
    let StepError::Work(WorkError::Sandbox(SandboxError::Failed { log, .. })) = &error else { return error };
    match read(log, step) {
        Some(explained) => explained.into(),
        None => error,
    }
}

fn read(log: &str, step: &ProvisionStep) -> Option<ProvisionError> {
    let folder = match step.folder() {
        "." => String::new(),
        folder => format!("{folder}/"),
    };
    let log = log.replace(&format!("{PLAYBOOKS}/"), &folder);
    let (log, note) = log.rsplit_once(MARK)?;
    let note: Value = serde_json::from_str(note.trim()).ok()?;
    let log = log.trim().to_owned();
    let text = |name: &str| note.get(name).and_then(Value::as_str).map(|text| text.trim().to_owned());
    if note.get("idle").is_some() {
        return Some(ProvisionError::Idle { playbook: step.playbook.clone(), log });
    }
    let message = text("message")?;
    Some(match text("task") {
        Some(task) => ProvisionError::Task(Box::new(FailedTask {
            task,
            place: text("place").unwrap_or_default(),
            module: text("module").unwrap_or_default(),
            network: step.network,
            message,
            log,
        })),
        None => ProvisionError::Refused { message, log },
    })
}

impl ProvisionError {
    /// Returns the end of Ansible's output; empty where it was not started.
    pub fn log(&self) -> &str {
        match self {
            Self::Task(failed) => &failed.log,
            Self::Refused { log, .. } | Self::Idle { log, .. } => log,
            _ => "",
        }
    }

    /// Says what to do next; none where the error itself says it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotAFile { .. } => "`playbook` names a file, such as \"./provision/site.yml\"",
            Self::NoShell => "start from a base, or copy a shell into the image first",
            Self::Idle { .. } => {
                "`hosts` of a play may be `all`, `localhost` or one of `groups`; without any group of this name nothing is \
                 played"
            }
            Self::Task(failed) => {
                let module = failed.module.rsplit('.').next().unwrap_or_default();
                if FETCHING.contains(&module) && !failed.network {
                    "nothing can be fetched here: list packages in the base's `packages`, put files beside the playbook, or \
                     set `network = true`, which makes the image unproven"
                } else if SERVING.contains(&module) {
                    "nothing runs in an image that is being made: a service can be enabled, not started"
                } else {
                    return None;
                }
            }
            _ => return None,
        };
        Some(hint.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(playbook: &str) -> ProvisionStep {
        ProvisionStep {
            playbook: playbook.into(),
            vars: Default::default(),
            tags: Vec::new(),
            groups: Vec::new(),
            network: false,
            tools: "tools".parse().unwrap(),
        }
    }

    #[test]
    fn a_failed_task_is_told_with_its_place_in_the_stack_folder() {
        let log = "TASK [a file]\nfatal: …\n\nkiln-provision: {\"task\": \"a file\", \"place\": \
            \"/.kiln/playbook/roles/x/tasks/main.yml:7\", \"module\": \"ansible.builtin.apt\", \"message\": \"no\"}\n";
        let error = read(log, &step("provision/site.yml")).unwrap();
        assert_eq!(error.to_string(), "task `a file` failed (provision/roles/x/tasks/main.yml:7): no");
        assert_eq!(error.log(), "TASK [a file]\nfatal: …");
        assert!(error.hint().unwrap().contains("`packages`"));
        let with_network = ProvisionStep { network: true, ..step("site.yml") };
        let error = read(log, &with_network).unwrap();
        assert_eq!(error.hint(), None);
        assert_eq!(error.to_string(), "task `a file` failed (roles/x/tasks/main.yml:7): no");
    }

    #[test]
    fn what_the_driver_did_not_write_is_not_explained() {
        for log in ["", "Traceback", "kiln-provision: ", "kiln-provision: [1]", "kiln-provision: {}"] {
            assert!(read(log, &step("a.yml")).is_none(), "{log}");
        }
        let idle = read("kiln-provision: {\"idle\": true}", &step("a.yml")).unwrap();
        assert_eq!(idle.to_string(), "no play of `a.yml` is for this image");
        let refused = read("kiln-provision: {\"message\": \"x\"}", &step("a.yml")).unwrap();
        assert!(matches!(refused, ProvisionError::Refused { .. }));
    }
}
