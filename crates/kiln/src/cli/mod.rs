//! The command line: what people type, and what they are told.
//!
//! One file per command. The only place that maps errors to a kind, a hint and an exit code, and the only place that
//! prints. What is deliberately absent is any decision about what runs: commands ask the controller, which decides.

mod abort;
mod answer;
mod audit;
mod bake;
mod builder;
mod check;
mod completions;
mod context;
mod deploy;
mod down;
mod events;
mod exit;
mod failure;
mod fmt;
mod follow;
mod gates;
mod host;
mod hosts;
mod image;
mod init;
mod interrupt;
mod lock;
mod logs;
mod plan;
mod promote;
mod prove;
mod ps;
mod queue;
mod registry;
mod release;
mod rollback;
mod rollout;
mod safety;
mod scale;
mod screen;
mod status;
mod table;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use context::{Context, Globals};
use exit::Exit;
use failure::{Failure, Outcome};
use screen::Screen;

/// Bake once, prove it, replace, never modify.
///
/// A stack is declared in HCL. Kiln bakes images from it, seals them into a release, and moves an environment to it by
/// creating new instances, moving traffic, and destroying the old ones.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Example:\n  kiln init && kiln up        declare a small stack and run it\n\n\
                        Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 errors in the stack,\n\
                        5 something outside failed, 70 a defect in Kiln, 130 detached by Ctrl-C.")]
struct Line {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Fmt(fmt::Args),
    Check(check::Args),
    Lock(lock::Args),
    Bake(bake::Args),
    Plan(plan::Args),
    Up(up::Args),
    Status(status::Args),
    Ps(ps::Args),
    Release(release::Args),
    Rollback(rollback::Args),
    Rollout(rollout::Args),
    Promote(promote::Args),
    Scale(scale::Args),
    Abort(abort::Args),
    Logs(logs::Args),
    Events(events::Args),
    Audit(audit::Args),
    Image(image::Args),
    Registry(registry::Args),
    Down(down::Args),
    Host(host::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Edge(host::ChildArgs),
    #[command(hide = true)]
    Controller(host::ChildArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == kiln_provider::host::ZYGOTE_COMMAND) {
        // Single-threaded and small: instances are cloned from it.
        return match kiln_provider::host::run_zygote() {
            Ok(()) => Exit::Done.into(),
            Err(_) => Exit::External.into(),
        };
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == kiln_bake::ELSEWHERE_COMMAND) {
        // Single-threaded, since it enters namespaces of its own: the second bake of a proof.
        return prove::elsewhere(std::env::args_os().skip(2));
    }
    let words = terraform_spelling(std::env::args_os());
    if words.len() == 1 {
        // Clap would count what comes from the environment as an argument, and complain of a missing one.
        Screen::new(false).complain(&Line::command().render_help().to_string());
        return Exit::Usage.into();
    }
    let detailed = words.iter().any(|word| word == "--detailed-exitcode");
    let line = match Line::try_parse_from(&words) {
        Ok(line) => line,
        Err(error) => {
            // clap knows which stream it belongs to; a closed one can't be complained about anywhere.
            let _ = error.print();
            return ExitCode::from(match error.use_stderr() {
                false => Exit::Done.code(),
                // 2 would read as "changes" to whoever asked for Terraform's codes.
                true if detailed => Exit::Failed.code(),
                true => Exit::Usage.code(),
            });
        }
    };
    let mut screen = Screen::new(line.globals.json);
    match run(line, &mut screen) {
        Ok(exit) => match screen.take_lost() {
            Some(error) => {
                tell(&Failure::external("the answer could not be written").cause(error), &mut screen);
                if exit == Exit::Done { Exit::External.into() } else { exit.into() }
            }
            None => exit.into(),
        },
        Err(failure) => {
            tell(&failure, &mut screen);
            if detailed { Exit::Failed.into() } else { failure.exit().into() }
        }
    }
}

fn run(line: Line, screen: &mut Screen) -> Outcome {
    let Line { globals, verb } = line;
    if let Some(folder) = &globals.chdir {
        std::env::set_current_dir(folder)
            .map_err(|error| Failure::usage(format!("cannot enter {}", folder.display())).cause(error))?;
    }
    let mut context = Context::new(globals, screen);
    let context = &mut context;
    match verb {
        Verb::Init(args) => init::run(&args, context),
        Verb::Fmt(args) => fmt::run(&args, context),
        Verb::Check(args) => check::run(&args, context),
        Verb::Lock(args) => lock::run(&args, context),
        Verb::Bake(args) => bake::run(&args, context),
        Verb::Plan(args) => plan::run(&args, context),
        Verb::Up(args) => up::run(&args, context),
        Verb::Status(args) => status::run(&args, context),
        Verb::Ps(args) => ps::run(&args, context),
        Verb::Release(args) => release::run(&args, context),
        Verb::Rollback(args) => rollback::run(&args, context),
        Verb::Rollout(args) => rollout::run(&args, context),
        Verb::Promote(args) => promote::run(&args, context),
        Verb::Scale(args) => scale::run(&args, context),
        Verb::Abort(args) => abort::run(&args, context),
        Verb::Logs(args) => logs::run(&args, context),
        Verb::Events(args) => events::run(&args, context),
        Verb::Audit(args) => audit::run(&args, context),
        Verb::Image(args) => image::run(&args, context),
        Verb::Registry(args) => registry::run(args, context),
        Verb::Down(args) => down::run(&args, context),
        Verb::Host(args) => host::run(&args, context),
        Verb::Completions(args) => completions::run(&args, Line::command(), context),
        Verb::Edge(args) => host::edge(&args, context),
        Verb::Controller(args) => host::controller(&args, context),
    }
}

fn tell(failure: &Failure, screen: &mut Screen) {
    let text = if screen.json() { failure.json() + "\n" } else { failure.text(screen.err_paint()) };
    screen.complain(&text);
}

/// Terraform's users type `-detailed-exitcode` and `-out=FILE` with one dash.
fn terraform_spelling(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let spell = |word: OsString| match word.to_str() {
        Some(text @ "-detailed-exitcode") => format!("-{text}").into(),
        Some(text) if text.starts_with("-out=") => format!("-{text}").into(),
        _ => word,
    };
    words.map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example_and_is_in_the_documentation() {
        let page = include_str!("../../../../docs/cli.md");
        let mut line = Line::command();
        line.build();
        for command in line.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            if name == "help" {
                continue;
            }
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Example"), "`kiln {name} --help` has no example");
            assert!(
                page.contains(&format!("## kiln {name}\n")),
                "docs/cli.md has no section for `kiln {name}`"
            );
            for flag in command
                .get_arguments()
                .filter(|arg| !arg.is_global_set() && !arg.is_hide_set())
                .filter_map(|arg| arg.get_long())
            {
                let known = page.contains(&format!("--{flag}")) || ["help", "version"].contains(&flag);
                assert!(known, "docs/cli.md does not mention --{flag} of `kiln {name}`");
            }
        }
    }

    #[test]
    fn terraforms_single_dash_is_understood() {
        let words = ["kiln", "plan", "-detailed-exitcode", "-out=x"].map(OsString::from);
        let line = Line::try_parse_from(terraform_spelling(words.into_iter())).unwrap();
        let Verb::Plan(args) = line.verb else { panic!("not a plan") };
        assert!(args.detailed_exitcode);
        assert_eq!(args.out, Some("x".into()));
    }
}
