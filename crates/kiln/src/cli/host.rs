//! `kiln host`, and the processes that it starts.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use kiln_config::units::parse_size;
use kiln_edge::client::EdgeClient;
use kiln_model::{ByteSize, EnvKey, EnvName, StackName};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::table::count;
use crate::api::client::{Client, RequestError};
use crate::runtime::{self, Lock, LockError, ProcessError, Settings, StateDir};

/// Between two looks at whether something is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long one of Kiln's processes may take to end: it has nothing to finish, only to let go.
const END_WITHIN: Duration = Duration::from_secs(20);
/// How long taking all environments down may take: drain and grace of the slowest, and then some.
const DOWN_WITHIN: Duration = Duration::from_secs(300);

/// Run Kiln on this machine
///
/// Owns the listening sockets and the instances, and keeps the edge and the controller running. In the foreground, until
/// SIGTERM or Ctrl-C; instances go on, and the next host adopts them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln host --state /srv/kiln\n  kiln host stop")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    child: ChildArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Settle what holds for this Kiln until it is settled otherwise
    ///
    /// What runs takes it up by itself, within seconds. `kiln status` shows it.
    #[command(after_help = "Example:\n  kiln host set --disk-budget 20GB")]
    Set {
        /// How much room images, packages and caches may take, such as 20GB, or `none`
        ///
        /// What is worth least goes first: caches of RUN steps and steps of bakes, then images that only a name keeps; then what can
        /// be gone back to is packed. What runs or can be gone back to never goes.
        #[arg(long, value_name = "SIZE", value_parser = budget)]
        disk_budget: Budget,
    },
    /// End Kiln's processes
    ///
    /// Instances go on, and so does the edge as long as there are any. With --force everything is taken down first.
    #[command(after_help = "Example:\n  kiln host stop")]
    Stop {
        /// Take every environment down first
        #[arg(long)]
        force: bool,
    },
}

/// A size, or none.
#[derive(Debug, Clone, Copy)]
struct Budget(Option<ByteSize>);

fn budget(text: &str) -> Result<Budget, String> {
    match text {
        "none" => Ok(Budget(None)),
        size => match parse_size(size)? {
            ByteSize(0) => Err("nothing fits in that; `none` takes the budget away".into()),
            size => Ok(Budget(Some(size))),
        },
    }
}

/// What a process of Kiln is started with.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ChildArgs {
    /// Its lock is its standard input
    #[arg(long, hide = true)]
    holds_lock: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    context.require_root("host")?;
    match &args.verb {
        None => ended("host", runtime::host::run(&context.state(), args.child.holds_lock)),
        Some(Verb::Set { disk_budget: Budget(budget) }) => set(*budget, context),
        Some(Verb::Stop { force }) => stop(*force, context),
    }
}

pub(super) fn edge(args: &ChildArgs, context: &mut Context<'_>) -> Outcome {
    ended("edge", runtime::edge::run(&context.state(), args.holds_lock))
}

pub(super) fn controller(args: &ChildArgs, context: &mut Context<'_>) -> Outcome {
    ended("controller", runtime::controller::run(&context.state(), args.holds_lock))
}

fn ended(name: &str, result: Result<(), ProcessError>) -> Outcome {
    match result {
        Ok(()) => Ok(Exit::Done),
        Err(error @ ProcessError::Lock(LockError::Held { .. })) => {
            Err(Failure::refused(format!("`kiln {name}` runs already"))
                .caused_by(&error)
                .hint("`kiln status` shows it"))
        }
        Err(error) => Err(Failure::external(format!("`kiln {name}` can't go on")).caused_by(&error)),
    }
}

fn set(disk_budget: Option<ByteSize>, context: &mut Context<'_>) -> Outcome {
    let state = context.state();
    let written = state.make_run().and_then(|_| Settings { disk_budget }.write(&state));
    written.map_err(|error| Failure::external("the settings can't be written").caused_by(&error))?;
    if context.screen.json() {
        let bytes = disk_budget.map(|ByteSize(bytes)| bytes);
        context.screen.answer(&json!({ "disk_budget_bytes": bytes }));
        return Ok(Exit::Done);
    }
    context.screen.line(&match disk_budget {
        None => "The store may take any room.".to_owned(),
        Some(budget) => format!("The store may take {budget}; `kiln status` shows how much it takes."),
    });
    Ok(Exit::Done)
}

fn stop(force: bool, context: &mut Context<'_>) -> Outcome {
    let state = context.state();
    let left = if force && state.path().join("log").exists() {
        // Started where it does not run: what a killed host left behind is only known to the next one.
        let client = context.client("host stop")?;
        take_down(&client)?;
        0
    } else {
        match context.running_client()? {
            Some(client) => client.environments()?.len(),
            // A controller that can't start can't be asked, and what the edge serves goes on all the same.
            None => served(&state),
        }
    };
    // The host first: it would start the others again.
    end("host", &state)?;
    end("controller", &state)?;
    if left == 0 {
        end("edge", &state)?;
    }
    if context.screen.json() {
        context.screen.answer(&json!({ "stopped": true, "environments": left }));
    } else if left > 0 {
        let environments = count(left, "environment");
        context.screen.line(&format!(
            "Kiln is stopped; the instances of {environments} go on, and the edge serves them."
        ));
    } else {
        context.screen.line("Kiln is stopped.");
    }
    Ok(Exit::Done)
}

/// How many environments the edge has routes to.
fn served(state: &StateDir) -> usize {
    let Ok(served) = EdgeClient::connect(&state.edge_socket()).and_then(|(edge, _)| edge.table()) else {
        return 0;
    };
    served.table.pools.keys().map(|pool| &pool.env).collect::<BTreeSet<_>>().len()
}

/// Takes every environment down and waits until nothing of them is left.
fn take_down(client: &Client) -> Result<(), Failure> {
    let until = Instant::now() + DOWN_WITHIN;
    for environment in client.environments()? {
        match client.down(&key(&environment.stack, &environment.env)?) {
            // The last of it went while this looked.
            Err(RequestError::Problem(problem)) if problem.code == "unknown_environment" => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    loop {
        let left = client.everything()?;
        // A test of an image that is over a moment ago may leave an instance that is still ending.
        if left.environments.is_empty() && left.checks == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            let environments = count(left.environments.len(), "environment");
            let checks = count(left.checks, "image test");
            return Err(Failure::external(format!("{environments} and {checks} did not end"))
                .hint("`kiln status` shows what they wait for"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn key(stack: &str, env: &str) -> Result<EnvKey, Failure> {
    let impossible = |error| Failure::bug("the controller named an impossible environment").cause(error);
    Ok(EnvKey {
        stack: StackName::new(stack).map_err(impossible)?,
        env: EnvName::new(env).map_err(impossible)?,
    })
}

/// Ends one of Kiln's processes, if it runs, and waits until it is gone.
fn end(name: &str, state: &StateDir) -> Result<(), Failure> {
    let path = state.lock_file(name);
    let until = Instant::now() + END_WITHIN;
    let mut asked = None;
    // A lock file without a holder is only a name: its pid may be anybody's by now.
    while path.exists() && matches!(Lock::try_take(&path), Err(LockError::Held { .. })) {
        let pid =
            fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw);
        // Asked once: a second signal could meet another process under the same number.
        if let Some(pid) = pid.filter(|pid| asked != Some(*pid)) {
            asked = Some(pid);
            kill_process(pid, Signal::TERM)
                .map_err(|error| Failure::external(format!("`kiln {name}` can't be ended")).cause(error))?;
        }
        if Instant::now() > until {
            return Err(Failure::external(format!("`kiln {name}` does not end"))
                .hint(format!("{} holds what it printed", state.process_log(name).display())));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
