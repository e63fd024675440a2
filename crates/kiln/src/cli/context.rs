//! What every command is given: the global options, the screen, and the ways to Kiln's other parts.

use std::path::PathBuf;

use kiln_model::{EnvKey, EnvName, StackName};

use super::failure::{Failure, Kind};
use super::screen::Screen;
use crate::api::client::{Client, ConnectError};
use crate::runtime::{self, EnsureError, StateDir};

/// How often a command connects again to a controller that answered a moment ago: one that ends each time does not run.
const RECONNECTS_MAX: usize = 5;

/// The options that every command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The environment
    #[arg(long, global = true, value_name = "NAME", help = "The environment [default: dev]")]
    pub env: Option<EnvName>,
    /// The stack, where this folder does not say
    #[arg(long, global = true, value_name = "NAME")]
    pub stack: Option<StackName>,
    /// Kiln's state folder
    #[arg(long, global = true, env = "KILN_STATE", default_value = StateDir::DEFAULT, value_name = "DIR")]
    pub state: PathBuf,
    /// Answer in JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Enter this folder first
    #[arg(short = 'C', long, global = true, value_name = "DIR")]
    pub chdir: Option<PathBuf>,
    /// Set a variable; may be repeated
    #[arg(long = "var", global = true, value_name = "NAME=VALUE", value_parser = variable)]
    pub vars: Vec<(String, String)>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

/// What a command works with.
pub(crate) struct Context<'a> {
    /// The options that every command takes.
    pub globals: Globals,
    /// Where it prints.
    pub screen: &'a mut Screen,
}

impl<'a> Context<'a> {
    /// Wraps what the command line said.
    pub(crate) fn new(globals: Globals, screen: &'a mut Screen) -> Self {
        Self { globals, screen }
    }

    /// The state folder.
    pub(crate) fn state(&self) -> StateDir {
        // A process that is started with it runs in another folder.
        let path = std::path::absolute(&self.globals.state).unwrap_or_else(|_| self.globals.state.clone());
        StateDir::new(path)
    }

    /// The environment that `--env` names, or `dev`.
    pub(crate) fn env(&self) -> EnvName {
        let default = || EnvName::new("dev").expect("a plain word is an environment's name");
        self.globals.env.clone().unwrap_or_else(default)
    }

    /// The environment that `--env` names, if it does.
    pub(crate) fn named_env(&self) -> Option<&EnvName> {
        self.globals.env.as_ref()
    }

    /// The folder of the stack: the current one.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        std::env::current_dir()
            .and_then(|folder| folder.canonicalize())
            .map_err(|error| Failure::external("the current folder can't be used").cause(error))
    }

    /// Refuses unless this is root, which instances need.
    pub(crate) fn require_root(&self, command: &str) -> Result<(), Failure> {
        if runtime::is_root() {
            return Ok(());
        }
        Err(Failure::refused(format!("`kiln {command}` must be run by root"))
            .cause("instances need namespaces, mounts and cgroups, and the state is root's")
            .hint(format!(
                "`sudo kiln {command}`; `kiln check`, `kiln fmt` and `kiln plan` work without root"
            )))
    }

    /// Connects to the controller and starts Kiln where it does not run.
    pub(crate) fn client(&self, command: &str) -> Result<Client, Failure> {
        self.require_root(command)?;
        let state = self.state();
        runtime::ensure_running(&state).map_err(|error| start_failure(&error))?;
        if command != "host stop" {
            runtime::keep_running(&state);
        }
        let mut connected = Client::connect(&state.api_socket());
        for _ in 0..RECONNECTS_MAX {
            if !matches!(connected, Err(ConnectError::NotRunning { .. })) {
                break;
            }
            // A controller that was killed since is started again by the host.
            runtime::ensure_running(&state).map_err(|error| start_failure(&error))?;
            connected = Client::connect(&state.api_socket());
        }
        connected.map_err(|error| connect_failure(&error))
    }

    /// Connects to the controller if Kiln runs; starts nothing.
    pub(crate) fn running_client(&self) -> Result<Option<Client>, Failure> {
        match Client::connect(&self.state().api_socket()) {
            Ok(client) => Ok(Some(client)),
            Err(ConnectError::NotRunning { .. }) => Ok(None),
            Err(error) => Err(connect_failure(&error)),
        }
    }

    /// Which environment is meant: `--stack`, else the stack of this folder, else the only one that runs.
    pub(crate) fn target(&self, client: &Client) -> Result<EnvKey, Failure> {
        let env = self.env();
        if let Some(stack) = &self.globals.stack {
            return Ok(EnvKey { stack: stack.clone(), env });
        }
        if let Some(stack) = self.folder().ok().and_then(|folder| super::deploy::folder::stack_name(&folder))
        {
            return Ok(EnvKey { stack, env });
        }
        let environments = client.environments().map_err(Failure::from)?;
        let mut stacks: Vec<String> = environments.into_iter().map(|environment| environment.stack).collect();
        stacks.dedup();
        match stacks.as_slice() {
            [only] => {
                let stack = StackName::new(only.as_str())
                    .map_err(|error| Failure::bug("the controller named an impossible stack").cause(error))?;
                Ok(EnvKey { stack, env })
            }
            [] => Err(Failure::refused("nothing runs, and this folder holds no stack")
                .hint("`kiln init` starts one; `-C DIR` enters another folder")),
            many => Err(Failure::usage("which stack? This folder holds none")
                .cause(format!("these run: {}", many.join(", ")))
                .hint("name it with `--stack NAME`, or enter its folder with `-C DIR`")),
        }
    }
}

fn start_failure(error: &EnsureError) -> Failure {
    let failure = match error {
        EnsureError::NotRoot => {
            Failure::refused("Kiln can only be started by root").hint("run it with `sudo`")
        }
        EnsureError::Folder { .. } => Failure::external("the state folder can't be used")
            .hint("`--state DIR` or KILN_STATE names another"),
        EnsureError::Log(_) => return super::audit::broken(Kind::External).caused_by(error),
        EnsureError::Lock(_) | EnsureError::Spawn(_) | EnsureError::Silent { .. } => {
            Failure::external("Kiln's processes could not be started")
                .hint("run the command again; `kiln host` in the foreground shows what is wrong")
        }
    };
    failure.caused_by(error)
}

fn connect_failure(error: &ConnectError) -> Failure {
    let failure = match error {
        ConnectError::NotRunning { .. } => Failure::external("Kiln does not run")
            .hint("`kiln up` starts it; `kiln host` runs it in the foreground"),
        ConnectError::Denied { .. } => {
            Failure::refused("this user may not talk to Kiln").hint("run the command as root")
        }
        ConnectError::Version { .. } => Failure::refused("this `kiln` and the running one are too far apart")
            .hint(
                "`kiln host stop`, then run the command again: the new version takes over, instances go on",
            ),
        ConnectError::Request(_) => Failure::external("the controller did not answer"),
    };
    failure.caused_by(error)
}
