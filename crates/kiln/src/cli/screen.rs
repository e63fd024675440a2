//! Where the command line prints: a terminal that can be redrawn, or a pipe that gets lines.

use std::io::{self, IsTerminal, Write};

use super::exit::Exit;

/// Colours, or none: in a pipe, under `NO_COLOR`, on a dumb terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// No colours.
    pub(crate) const PLAIN: Self = Self { on: false };
    /// Colours.
    pub(crate) const COLOUR: Self = Self { on: true };

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// For what failed.
    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31;1", text)
    }

    /// For what is well.
    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// For what waits or changes.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// For headings.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// One of six hues, the same for the same number.
    pub(crate) fn hue(self, number: usize, text: &str) -> String {
        const HUES: [&str; 6] = ["36", "33", "32", "35", "34", "31"];
        self.wrap(HUES[number % HUES.len()], text)
    }
}

/// The two streams of the process.
///
/// What was asked for goes to stdout; progress and failures go to stderr, so that a pipe gets only the answer. When nobody
/// reads the answer any more the command ends quietly, as any tool in a pipeline. When nobody reads the progress it goes on:
/// what was asked for is still wanted.
#[derive(Debug)]
pub(crate) struct Screen {
    json: bool,
    out: Paint,
    err: Paint,
    live: bool,
    drawn_lines: usize,
    /// Why a part of the answer could not be written, the first time.
    lost: Option<io::Error>,
}

/// Where the width is unknown: a pipe, a file.
const COLUMNS_DEFAULT: usize = 100;

impl Screen {
    /// The streams of this process.
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let paint = |tty: bool| if tty && !plain { Paint::COLOUR } else { Paint::PLAIN };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            json,
            out: paint(io::stdout().is_terminal()),
            err: paint(io::stderr().is_terminal()),
            live: io::stderr().is_terminal() && !dumb && !json,
            drawn_lines: 0,
            lost: None,
        }
    }

    /// Takes why a part of the answer could not be written, if so.
    pub(crate) fn take_lost(&mut self) -> Option<io::Error> {
        self.lost.take()
    }

    /// Whether the answer is wanted as JSON.
    pub(crate) const fn json(&self) -> bool {
        self.json
    }

    /// Colours for stdout.
    pub(crate) const fn paint(&self) -> Paint {
        self.out
    }

    /// Colours for stderr.
    pub(crate) const fn err_paint(&self) -> Paint {
        self.err
    }

    /// Whether progress can be redrawn.
    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// How wide the terminal is.
    pub(crate) fn columns(&self) -> usize {
        match rustix::termios::tcgetwinsize(io::stderr()) {
            Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
            _ => COLUMNS_DEFAULT,
        }
    }

    /// Prints part of the answer as it is.
    pub(crate) fn print(&mut self, text: &str) {
        self.clear();
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                std::process::exit(i32::from(Exit::Unread.code()))
            }
            Err(error) => {
                self.lost.get_or_insert(error);
            }
            Ok(()) => {}
        }
    }

    /// Prints a line of the answer.
    pub(crate) fn line(&mut self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// Prints the answer as JSON.
    pub(crate) fn answer(&mut self, value: &serde_json::Value) {
        let text = serde_json::to_string_pretty(value).expect("a JSON value always prints");
        self.line(&text);
    }

    /// Prints one JSON value on one line, for streams.
    pub(crate) fn record(&mut self, value: &serde_json::Value) {
        self.line(&value.to_string());
    }

    /// Tells something beside the answer. Under `--json`, nothing: stdout has it all.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.json {
            self.complain(&format!("{text}\n"));
        }
    }

    /// Writes to stderr, whatever the format.
    pub(crate) fn complain(&mut self, text: &str) {
        self.clear();
        tell(text);
    }

    /// Replaces what was drawn before with these lines. Does nothing where nothing can be redrawn.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        if !self.live {
            return;
        }
        let columns = self.columns();
        let mut text = self.erasure();
        for line in lines {
            text.push_str(&cut(line, columns));
            text.push('\n');
        }
        self.drawn_lines = lines.len();
        tell(&text);
    }

    /// Leaves what was drawn where it is: the next frame begins below.
    pub(crate) fn keep(&mut self) {
        self.drawn_lines = 0;
    }

    fn clear(&mut self) {
        let erase = self.erasure();
        if !erase.is_empty() {
            tell(&erase);
        }
        self.drawn_lines = 0;
    }

    fn erasure(&self) -> String {
        match self.drawn_lines {
            0 => String::new(),
            n => format!("\x1b[{n}A\x1b[J"),
        }
    }
}

/// Writes to stderr. What can't be told there can't be told anywhere, and is no reason to give up half-way.
fn tell(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Cuts a painted line to `columns` visible characters, so that a frame is as many rows as it has lines.
fn cut(line: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut seen = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            out.push(c);
            for c in chars.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        if seen + 1 >= columns {
            out.push('…');
            out.push_str("\x1b[0m");
            return out;
        }
        out.push(c);
        seen += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_not_by_its_bytes() {
        let painted = Paint::COLOUR.red("abc");
        assert_eq!(cut(&painted, 10), painted);
        assert_eq!(cut("abcdef", 4), "abc…\x1b[0m");
    }

    #[test]
    fn plain_paint_adds_nothing() {
        assert_eq!(Paint::PLAIN.red("x"), "x");
        assert_ne!(Paint::COLOUR.red("x"), "x");
    }
}
