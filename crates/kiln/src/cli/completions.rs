//! `kiln completions`

use super::context::Context;
use super::exit::Exit;
use super::failure::Outcome;

/// Print a shell's completion script
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln completions bash > /etc/bash_completion.d/kiln")]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, mut line: clap::Command, context: &mut Context<'_>) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut line, "kiln", &mut script);
    context.screen.print(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
