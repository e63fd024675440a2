//! What an environment asks for before it lets a release in, as it is told on the command line.

use std::time::{Duration, Instant};

use kiln_model::{EnvKey, Timestamp};

use super::exit::Exit;
use super::failure::{Failure, Kind};
use super::interrupt::Interrupt;
use super::screen::Screen;
use super::table::moment;
use crate::api::client::{Client, RequestError};
use crate::api::wire;

/// How often an environment is asked again whether its gates are open: nobody approves to the second.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How soon Ctrl-C is noticed.
const NOTICE_EVERY: Duration = Duration::from_millis(50);

/// One line about a gate.
pub(super) fn line(gate: &wire::Gate) -> String {
    let until = gate.until_ms.map(|at| format!("; open from {} UTC on", moment(Timestamp(at))));
    format!("{}: {}{}", gate.gate, gate.detail, until.unwrap_or_default())
}

/// Says why a release was not let in, gate by gate.
pub(super) fn refused(error: RequestError, env: &EnvKey) -> Failure {
    match error {
        RequestError::Problem(problem) if problem.code == "gates_shut" => {
            Failure::refused(problem.message).hint(advice(env))
        }
        error => error.into(),
    }
}

fn advice(env: &EnvKey) -> String {
    format!(
        "`kiln promote --wait` waits for them; `--break-glass REASON` passes them, and {env}'s log says so"
    )
}

/// Refuses where a gate is shut, with each that is.
///
/// # Errors
/// One is, or the controller can't be asked.
pub(super) fn require_open(client: &Client, env: &EnvKey, up: &wire::Up) -> Result<(), Failure> {
    let shut = shut(client, env, up)?;
    if shut.is_empty() {
        return Ok(());
    }
    let failure = Failure::refused(format!("{env} does not let this release in now")).hint(advice(env));
    Err(shut.iter().map(line).fold(failure, Failure::cause))
}

fn shut(client: &Client, env: &EnvKey, up: &wire::Up) -> Result<Vec<wire::Gate>, Failure> {
    let mut gates = client.gates(env, up)?.gates;
    gates.retain(|gate| !gate.is_open);
    Ok(gates)
}

/// Waits until all gates are open. Says what it waits for whenever that is something else.
///
/// # Errors
/// Something is missing that neither time nor an approval brings, or the controller can't be asked.
pub(super) fn wait(
    client: &Client,
    env: &EnvKey,
    up: &wire::Up,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Option<Exit>, Failure> {
    let mut said = Vec::new();
    loop {
        let shut = shut(client, env, up)?;
        if shut.is_empty() {
            return Ok(None);
        }
        if shut.iter().any(|gate| !can_be_waited_for(gate)) {
            let failure = Failure::new(Kind::Refused, format!("{env} does not let this release in"));
            return Err(shut.iter().map(line).fold(failure, Failure::cause));
        }
        // The time that has passed is told as well; what is told once is which gate is shut.
        let kinds: Vec<String> = shut.iter().map(|gate| gate.gate.clone()).collect();
        if kinds != said {
            let lines: Vec<String> = shut.iter().map(line).collect();
            screen.note(&format!("{env} waits for\n  {}", lines.join("\n  ")));
            said = kinds;
        }
        let again = Instant::now() + ASK_EVERY;
        while Instant::now() < again {
            if interrupt.is_set() {
                return Ok(Some(Exit::Detached));
            }
            std::thread::sleep(NOTICE_EVERY);
        }
    }
}

/// Time and people open these; a release that does not serve in the environment before gets no older there.
fn can_be_waited_for(gate: &wire::Gate) -> bool {
    gate.until_ms.is_some() || gate.gate == "approval"
}
