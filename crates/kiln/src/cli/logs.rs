//! `kiln logs`

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use kiln_model::{EnvKey, InstanceId, Timestamp};
use kiln_provider::port::{LogCursor, LogLine, LogNext, Provider, Stream};
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::screen::Screen;
use super::table::moment;
use crate::api::client::Client;
use crate::api::wire;

/// Lines that wait for a slow terminal; then the readers wait.
const LINES_WAITING_MAX: usize = 1024;
/// How often new instances are looked for, and Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A line that is there already comes within this.
const BACKLOG_QUIET: Duration = Duration::from_millis(50);
/// Each instance is read by a thread; nobody reads more than this at once.
const INSTANCES_MAX: usize = 256;

/// Show what instances print
///
/// Merges the instances of the environment by time, each line with the instance that it is from. With -f, goes on with what
/// is printed from now on, new instances included.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln logs -f web\n  kiln logs --tail 20 --env prod")]
pub(super) struct Args {
    /// A service, or an instance's id; by default all
    #[arg(value_name = "SERVICE|INSTANCE")]
    which: Option<String>,
    /// Go on with what is printed from now on
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines of each instance
    #[arg(long, default_value_t = 200, value_name = "LINES")]
    tail: usize,
}

/// A line, and whose it is.
struct Line {
    source: Arc<Source>,
    line: LogLine,
}

struct Source {
    id: InstanceId,
    service: String,
    ordinal: u32,
    hue: usize,
}

/// What a reader sends.
enum News {
    Line(Line),
    /// The lines that were there already are sent.
    Caught,
    Failed(String),
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let client = context.client("logs")?;
    let target = context.target(&client)?;
    let provider = super::hosts::provider(&context.state());
    let mut tail =
        Tail { args, target, provider, sender: None, known: BTreeSet::new(), services: Vec::new() };
    let (sender, news) = sync_channel(LINES_WAITING_MAX);
    tail.sender = Some(sender);
    let readers = tail.look(&client)?;
    if readers == 0 && !args.follow {
        let what =
            args.which.as_deref().map_or_else(|| "no instances".into(), |which| format!("no `{which}`"));
        return Err(
            Failure::refused(format!("{} has {what}", tail.target)).hint("`kiln ps` lists the instances")
        );
    }
    backlog(&news, readers, context.screen)?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    let interrupt = Interrupt::listen(|| {});
    while !interrupt.is_set() {
        match news.recv_timeout(LOOK_EVERY) {
            Ok(News::Line(line)) => print(&line, context.screen),
            Ok(News::Caught) => {}
            Ok(News::Failed(why)) => context.screen.note(&why),
            Err(RecvTimeoutError::Timeout) => {
                tail.look(&client)?;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(Exit::Done)
}

/// Opens a reader for each instance that it did not know.
struct Tail<'a> {
    args: &'a Args,
    target: EnvKey,
    provider: Arc<dyn Provider>,
    sender: Option<SyncSender<News>>,
    known: BTreeSet<InstanceId>,
    services: Vec<String>,
}

impl Tail<'_> {
    /// Returns how many new readers there are.
    fn look(&mut self, client: &Client) -> Result<usize, Failure> {
        let environment = client.environment(&self.target)?;
        let mut new = 0;
        for instance in &environment.instances {
            let Ok(id) = instance.id.parse::<InstanceId>() else { continue };
            if !self.wants(instance) || self.known.contains(&id) || self.known.len() >= INSTANCES_MAX {
                continue;
            }
            self.known.insert(id);
            let hue = match self.services.iter().position(|service| *service == instance.service) {
                Some(hue) => hue,
                None => {
                    self.services.push(instance.service.clone());
                    self.services.len() - 1
                }
            };
            let source = Source { id, service: instance.service.clone(), ordinal: instance.ordinal, hue };
            self.read(Arc::new(source))?;
            new += 1;
        }
        Ok(new)
    }

    fn wants(&self, instance: &wire::Instance) -> bool {
        self.args.which.as_ref().is_none_or(|which| *which == instance.service || *which == instance.id)
    }

    fn read(&self, source: Arc<Source>) -> Result<(), Failure> {
        let Some(sender) = self.sender.clone() else { return Ok(()) };
        let (provider, follow, tail) = (Arc::clone(&self.provider), self.args.follow, self.args.tail);
        let work = move || {
            if let Err(why) = read(provider.as_ref(), &source, follow, tail, &sender) {
                // A main thread that is gone needs no news.
                let _ = sender.send(News::Failed(format!("{}: {why}", source.id)));
                let _ = sender.send(News::Caught);
            }
        };
        std::thread::Builder::new()
            .name("logs".into())
            .spawn(work)
            .map(drop)
            .map_err(|error| Failure::external("no thread can be started").cause(error))
    }
}

/// Sends the last lines that are there, then what comes. Ends with the log, or with the receiver.
fn read(
    provider: &dyn Provider,
    source: &Arc<Source>,
    follow: bool,
    tail: usize,
    sender: &SyncSender<News>,
) -> Result<(), String> {
    let mut stream =
        provider.logs(source.id, LogCursor::default(), follow).map_err(|error| error.to_string())?;
    let wrap = |line| News::Line(Line { source: Arc::clone(source), line });
    let mut kept = VecDeque::new();
    let ended = loop {
        match stream.next(BACKLOG_QUIET).map_err(|error| error.to_string())? {
            LogNext::Line(line) => {
                kept.push_back(line);
                if kept.len() > tail {
                    kept.pop_front();
                }
            }
            LogNext::Quiet => break false,
            LogNext::End => break true,
        }
    };
    for line in kept {
        if sender.send(wrap(line)).is_err() {
            return Ok(());
        }
    }
    let mut over = sender.send(News::Caught).is_err() || ended || !follow;
    while !over {
        over = match stream.next(LOOK_EVERY).map_err(|error| error.to_string())? {
            LogNext::Line(line) => sender.send(wrap(line)).is_err(),
            LogNext::Quiet => false,
            LogNext::End => true,
        };
    }
    Ok(())
}

/// Prints what the readers have already, by time.
fn backlog(news: &Receiver<News>, readers: usize, screen: &mut Screen) -> Result<(), Failure> {
    let (mut lines, mut caught) = (Vec::new(), 0);
    while caught < readers {
        match news.recv() {
            Ok(News::Line(line)) => lines.push(line),
            Ok(News::Caught) => caught += 1,
            Ok(News::Failed(why)) => screen.note(&why),
            Err(_) => break,
        }
    }
    // Stable: the lines of one instance keep their order.
    lines.sort_by_key(|line| line.line.at);
    for line in &lines {
        print(line, screen);
    }
    Ok(())
}

fn print(line: &Line, screen: &mut Screen) {
    let Line { source, line } = line;
    if screen.json() {
        screen.record(&json!({
            "instance": source.id.as_str(),
            "service": source.service,
            "ordinal": source.ordinal,
            "at_ms": line.at.0,
            "stream": if line.stream == Stream::Err { "stderr" } else { "stdout" },
            "text": line.text,
        }));
        return;
    }
    let paint = screen.paint();
    let prefix = paint.hue(source.hue, &format!("{}/{} {}", source.service, source.ordinal, source.id));
    let time = paint.dim(&moment(Timestamp(line.at.0)));
    screen.line(&format!("{time} {prefix} {}", printable(&line.text)));
}

/// What an application prints must not move the reader's cursor or set the terminal's title; colours may stay.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
        out.push_str(&rest[..at]);
        let (escape, after) = colour(&rest[at..]);
        out.push_str(escape);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Splits off a leading control: kept if it sets a colour (`ESC [ … m`), else replaced.
fn colour(text: &str) -> (&str, &str) {
    if let Some(body) = text.strip_prefix("\x1b[") {
        let end = body.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(body.len());
        if body[end..].starts_with('m') {
            return text.split_at(end + 3);
        }
    }
    let first = text.chars().next().map_or(0, char::len_utf8);
    ("\u{fffd}", &text[first..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_may_colour_its_lines_and_nothing_else() {
        assert_eq!(printable("a\tb"), "a\tb");
        assert_eq!(printable("\x1b[31;1mred\x1b[0m"), "\x1b[31;1mred\x1b[0m");
        assert_eq!(printable("\x1b]0;title\x07x\x1b[2J\r"), "\u{fffd}]0;title\u{fffd}x\u{fffd}[2J\u{fffd}");
        assert_eq!(printable("\x1b[31"), "\u{fffd}[31");
    }
}
