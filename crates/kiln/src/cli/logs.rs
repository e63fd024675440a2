//! `kiln logs`

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use kiln_model::rollout::Place;
use kiln_model::{EnvKey, InstanceId, Timestamp};
use kiln_provider::port::{LogCursor, LogLine, LogNext, Provider, ProviderError, Stream};
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow::advice;
use super::interrupt::Interrupt;
use super::screen::Screen;
use super::table::moment;
use crate::api::client::{Client, Next, RequestError};
use crate::runtime::StateDir;

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
    /// Also instances that are gone, as far as their logs are kept
    #[arg(long)]
    ended: bool,
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
    let mut readers = tail.look(&client)?;
    if args.ended {
        readers += tail.look_back(&client)?;
    }
    if readers == 0 && !args.follow {
        let what =
            args.which.as_deref().map_or_else(|| "no instances".into(), |which| format!("no `{which}`"));
        return Err(
            Failure::refused(format!("{} has {what}", tail.target)).hint("`kiln ps` lists the instances")
        );
    }
    let mut output = Output { screen: context.screen, hinted: false };
    backlog(&news, readers, &mut output)?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    let interrupt = Interrupt::listen(|| {});
    while !interrupt.is_set() {
        match news.recv_timeout(LOOK_EVERY) {
            Ok(News::Line(line)) => output.print(&line),
            Ok(News::Caught) => {}
            Ok(News::Failed(why)) => output.screen.note(&why),
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
    /// Reads the instances that there are; returns how many of them are new.
    fn look(&mut self, client: &Client) -> Result<usize, Failure> {
        let environment = client.environment(&self.target)?;
        let mut new = 0;
        for instance in &environment.instances {
            let Ok(id) = instance.id.parse::<InstanceId>() else { continue };
            new += usize::from(self.begin(id, &instance.service, instance.ordinal)?);
        }
        Ok(new)
    }

    /// Reads the instances that there were, the latest first.
    fn look_back(&mut self, client: &Client) -> Result<usize, Failure> {
        let mut new = 0;
        for past in past(client, &self.target, 0)?.into_iter().rev() {
            let Some((service, ordinal)) = &past.slot else { continue };
            new += usize::from(self.begin(past.id, service, *ordinal)?);
        }
        Ok(new)
    }

    /// Whether the instance is wanted, and was not read so far.
    fn begin(&mut self, id: InstanceId, service: &str, ordinal: u32) -> Result<bool, Failure> {
        let wanted = self.args.which.as_ref().is_none_or(|which| *which == service || which == id.as_str());
        if !wanted || self.known.contains(&id) || self.known.len() >= INSTANCES_MAX {
            return Ok(false);
        }
        self.known.insert(id);
        let hue = match self.services.iter().position(|known| known == service) {
            Some(hue) => hue,
            None => {
                self.services.push(service.to_owned());
                self.services.len() - 1
            }
        };
        self.read(Arc::new(Source { id, service: service.to_owned(), ordinal, hue }))?;
        Ok(true)
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
    let mut stream = match provider.logs(source.id, LogCursor::default(), follow) {
        Ok(stream) => stream,
        // Its log is not kept any more.
        Err(ProviderError::Unknown(_)) => {
            let _ = sender.send(News::Caught);
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    };
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
fn backlog(news: &Receiver<News>, readers: usize, output: &mut Output<'_>) -> Result<(), Failure> {
    let (mut lines, mut caught) = (Vec::new(), 0);
    while caught < readers {
        match news.recv() {
            Ok(News::Line(line)) => lines.push(line),
            Ok(News::Caught) => caught += 1,
            Ok(News::Failed(why)) => output.screen.note(&why),
            Err(_) => break,
        }
    }
    // Stable: the lines of one instance keep their order.
    lines.sort_by_key(|line| line.line.at);
    for line in &lines {
        output.print(line);
    }
    Ok(())
}

/// An instance that the log of events names.
struct Past {
    id: InstanceId,
    /// Its service and its number there; none for an image's test.
    slot: Option<(String, u32)>,
    /// Whether it ended by itself, could not be made, or was unhealthy.
    failed: bool,
}

impl Past {
    /// Whether a reason names its service.
    fn is_named(&self, reason: &str) -> bool {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let mut words = reason.split(|c| !is_part(c));
        self.slot.as_ref().is_some_and(|(service, _)| words.any(|word| word == service))
    }
}

/// The instances of an environment that were asked for after a position, in that order.
fn past(client: &Client, env: &EnvKey, after: u64) -> Result<Vec<Past>, RequestError> {
    let env = env.to_string();
    let mut found: Vec<Past> = Vec::new();
    let mut events = client.events(after, false)?;
    loop {
        let event = match events.next(LOOK_EVERY)? {
            Next::Item(event) if event.env.as_ref() == Some(&env) => event,
            Next::Item(_) | Next::Idle => continue,
            Next::End => return Ok(found),
        };
        let Some(id) = event.data["instance"].as_str().and_then(|id| id.parse::<InstanceId>().ok()) else {
            continue;
        };
        match event.kind.as_str() {
            "instance.requested" => {
                let ordinal = event.data["ordinal"].as_u64().and_then(|ordinal| ordinal.try_into().ok());
                let service = event.data["service"].as_str();
                let slot = service.map(|service| (service.to_owned(), ordinal.unwrap_or_default()));
                found.push(Past { id, slot, failed: false });
            }
            // A job that did its work is no reason.
            "instance.exited" if event.data["succeeded"] == true => {}
            "instance.exited" | "instance.refused" | "instance.became_unhealthy" => {
                if let Some(past) = found.iter_mut().rfind(|past| past.id == id) {
                    past.failed = true;
                }
            }
            _ => {}
        }
    }
}

/// The last lines that those printed that were asked for after a position and failed, or others where none did: mostly they say
/// what is wrong. Where the reason for the failure names services, the others are not to blame. Best effort: a failure to read
/// them must not hide the failure that they are about.
pub(super) fn last_words(
    client: &Client,
    state: &StateDir,
    env: &EnvKey,
    after: u64,
    reason: &str,
) -> Vec<String> {
    /// One instance of a failed service is much like the next.
    const INSTANCES_SHOWN_MAX: usize = 2;
    /// The last lines of a traceback.
    const LINES_SHOWN_MAX: usize = 5;
    let provider = super::hosts::provider(state);
    let mut found = past(client, env, after).unwrap_or_default();
    if found.iter().any(|past| past.is_named(reason)) {
        found.retain(|past| past.failed || past.is_named(reason));
    }
    found.sort_by_key(|past| !past.failed);
    let words = |past: &Past| -> Option<String> {
        let mut log = provider.logs(past.id, LogCursor::default(), false).ok()?;
        let mut lines = VecDeque::new();
        while let Ok(LogNext::Line(line)) = log.next(BACKLOG_QUIET) {
            lines.push_back(printable(&shown(&line.text)));
            if lines.len() > LINES_SHOWN_MAX {
                lines.pop_front();
            }
        }
        let text: Vec<String> = lines.into();
        let name = match &past.slot {
            Some((service, ordinal)) => format!("{service}/{ordinal} {}", past.id),
            None => format!("the test's instance {}", past.id),
        };
        (!text.is_empty()).then(|| format!("{name} printed:\n{}", text.join("\n")))
    };
    found.iter().filter_map(words).take(INSTANCES_SHOWN_MAX).collect()
}

/// As much of a line as helps in a failure: one of a megabyte would push the reason for it off the screen.
fn shown(text: &str) -> Cow<'_, str> {
    const CHARS_SHOWN_MAX: usize = 400;
    match text.char_indices().nth(CHARS_SHOWN_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Where the lines go.
struct Output<'a> {
    screen: &'a mut Screen,
    /// Whether it was said what to do about a root that can't be written to: once is enough.
    hinted: bool,
}

impl Output<'_> {
    fn print(&mut self, line: &Line) {
        let Line { source, line } = line;
        if self.screen.json() {
            self.screen.record(&json!({
                "instance": source.id.as_str(),
                "service": source.service,
                "ordinal": source.ordinal,
                "at_ms": line.at.0,
                "stream": if line.stream == Stream::Err { "stderr" } else { "stdout" },
                "text": line.text,
            }));
            return;
        }
        let paint = self.screen.paint();
        let prefix =
            paint.hue(source.hue, &format!("{}/{} {}", source.service, Place(source.ordinal), source.id));
        let time = paint.dim(&moment(Timestamp(line.at.0)));
        self.screen.line(&format!("{time} {prefix} {}", printable(&line.text)));
        if !self.hinted && advice::is_read_only(&line.text) {
            self.hinted = true;
            self.screen.note(&format!("hint: {}", advice::SCRATCH));
        }
    }
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

    #[test]
    fn a_reason_names_a_service_by_a_word_of_its_own() {
        let id = "baaaaaaaaa".parse().unwrap();
        let web = Past { id, slot: Some(("web".into(), 0)), failed: false };
        assert!(web.is_named("web/0: exited with code 3"));
        assert!(web.is_named("the new web is worse than its baseline"));
        assert!(!web.is_named("job web-check-1 did not end within 2s"));
        assert!(!web.is_named("website/0 was not healthy in time"));
        let test = Past { id, slot: None, failed: false };
        assert!(!test.is_named("web"));
    }

    #[test]
    fn a_failure_shows_the_beginning_of_a_line_without_end() {
        assert_eq!(shown("short"), "short");
        let long = "ä".repeat(5_000);
        assert_eq!(shown(&long), format!("{}…", "ä".repeat(400)));
    }
}
