//! Lines to instructions.

use super::flags::Flags;
use super::heredoc;
use super::instruction::{Action, CommandLine, Copy, CopySource, From, Instruction, Network, Run, Word};
use super::lines::{self, Line};
use super::problem::{Problem, Span};
use super::words::{Rest, is_blank};
use super::{healthcheck, mounts};
use crate::nearest::nearest;

/// What a text holds.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) escape: char,
    pub(super) instructions: Vec<Instruction>,
    pub(super) problems: Vec<Problem>,
}

const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads all instructions; what can't be read is told with its place, and the rest is read nevertheless.
pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed { escape: '\\', instructions: Vec::new(), problems: Vec::new() };
    match lines::read(text) {
        Ok(read) => {
            parsed.escape = read.escape;
            for line in &read.lines {
                match instruction(line, read.escape) {
                    Ok(instruction) => parsed.instructions.push(instruction),
                    Err(problem) => parsed.problems.push(problem),
                }
            }
        }
        Err(problem) => parsed.problems.push(problem),
    }
    parsed
}

/// Reads an instruction that an image brings in its `ONBUILD`.
pub(crate) fn parse_trigger(text: &str) -> Result<Instruction, Problem> {
    let mut parsed = parse(text);
    match (parsed.problems.pop(), parsed.instructions.pop()) {
        (Some(problem), _) => Err(problem),
        (None, Some(instruction)) if parsed.instructions.is_empty() => Ok(instruction),
        _ => Err(Problem::new(Line::of_text(text).whole(), "it is not one instruction")),
    }
}

fn instruction(line: &Line, escape: char) -> Result<Instruction, Problem> {
    let rest = Rest::of(line);
    let action = action(rest, escape)?;
    let text = rest.text().split(is_blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    Ok(Instruction { span: rest.span(), text, action })
}

fn action(whole: Rest<'_>, escape: char) -> Result<Action, Problem> {
    let (name, rest) = whole.split_first();
    let upper = name.text().to_ascii_uppercase();
    if !INSTRUCTIONS.contains(&upper.as_str()) {
        let shown = name.text().escape_debug().to_string();
        let problem = Problem::new(name.span(), format!("there is no instruction `{shown}`"));
        return Err(problem.meant(nearest(&upper, INSTRUCTIONS.into_iter())));
    }
    let (flags, rest) = Flags::split(&upper, rest)?;
    if rest.is_empty() && !matches!(upper.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(Problem::new(whole.span(), format!("{upper} needs an argument")));
    }
    Ok(match upper.as_str() {
        "FROM" => Action::From(from(rest, &flags)?),
        "ARG" => Action::Arg(arg(rest, escape)),
        "ENV" => Action::Env(pairs("ENV", rest, escape)?),
        "LABEL" => Action::Label(pairs("LABEL", rest, escape)?),
        "ADD" | "COPY" => Action::Copy(Box::new(copy(&upper, rest, &flags)?)),
        "RUN" => Action::Run(Box::new(run(rest, &flags)?)),
        "WORKDIR" => Action::Workdir(rest.word()),
        "USER" => Action::User(rest.word()),
        "STOPSIGNAL" => Action::StopSignal(rest.word()),
        "MAINTAINER" => Action::Maintainer(rest.word()),
        "EXPOSE" => Action::Expose(rest.blank_words()),
        "VOLUME" => Action::Volume(list(rest)?),
        "SHELL" => match rest.json()? {
            Some(words) if !words.is_empty() => Action::Shell(words),
            _ => {
                let problem = Problem::new(rest.span(), "SHELL takes a list in the JSON form");
                return Err(problem.help("write `SHELL [\"/bin/bash\", \"-c\"]`"));
            }
        },
        "CMD" => Action::Cmd(command(rest)?),
        "ENTRYPOINT" => Action::Entrypoint(command(rest)?),
        "HEALTHCHECK" => Action::Healthcheck(healthcheck::read(rest, &flags)?),
        _ => on_build(rest, escape)?,
    })
}

fn from(rest: Rest<'_>, flags: &Flags) -> Result<From, Problem> {
    let words = rest.blank_words();
    let platform = flags.word("platform");
    match &words[..] {
        [image] => Ok(From { image: image.clone(), platform, name: None }),
        [image, word, name] if word.text.eq_ignore_ascii_case("as") => {
            let lower = name.text.to_ascii_lowercase();
            let good = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
            if !good {
                let message = format!("`{}` can't be the name of a stage", name.text.escape_debug());
                let help = "it begins with a letter; letters, digits, `-`, `_` and `.` follow";
                return Err(Problem::new(name.span, message).help(help));
            }
            let name = Some(Word { text: lower, span: name.span });
            Ok(From { image: image.clone(), platform, name })
        }
        _ => Err(Problem::new(rest.span(), "FROM takes an image, and a name after `AS`")),
    }
}

fn arg(rest: Rest<'_>, escape: char) -> Vec<(Word, Option<Word>)> {
    let one = |word: Rest<'_>| {
        let Some(at) = word.text().find('=') else { return (word.word(), None) };
        let (name, value) = split_at(word, at);
        (name, Some(value))
    };
    rest.quoted_words(escape).into_iter().map(one).collect()
}

/// `name=value`, as its two parts.
fn split_at(word: Rest<'_>, equals: usize) -> (Word, Word) {
    let name = Rest { end: word.start + equals, ..word };
    let value = Rest { start: word.start + equals + 1, ..word };
    (name.word(), value.word())
}

fn pairs(instruction: &str, rest: Rest<'_>, escape: char) -> Result<Vec<(Word, Word)>, Problem> {
    let words = rest.quoted_words(escape);
    // The old form: one name, and all the rest is its value.
    if words.first().is_some_and(|word| !word.text().contains('=')) {
        let (name, value) = rest.split_first();
        if value.is_empty() {
            let problem = Problem::new(rest.span(), format!("{instruction} needs a name and a value"));
            return Err(problem.help(format!("write `{instruction} {}=…`", name.text())));
        }
        return Ok(vec![(name.word(), value.word())]);
    }
    let pair = |word: Rest<'_>| match word.text().find('=') {
        Some(0) => Err(Problem::new(word.span(), format!("{instruction} has a value without a name"))),
        Some(at) => Ok(split_at(word, at)),
        None => {
            let problem = Problem::new(word.span(), format!("`{}` has no `=`", word.text().escape_debug()));
            Err(problem.help("a value with a space is quoted: `NAME=\"two words\"`"))
        }
    };
    words.into_iter().map(pair).collect()
}

fn list(rest: Rest<'_>) -> Result<Vec<Word>, Problem> {
    let span = rest.span();
    Ok(match rest.json()? {
        Some(texts) => texts.into_iter().map(|text| Word { text, span }).collect(),
        None => rest.blank_words(),
    })
}

pub(super) fn command(rest: Rest<'_>) -> Result<CommandLine, Problem> {
    Ok(match rest.json()? {
        Some(words) => CommandLine::Exec(words),
        None if rest.is_empty() => CommandLine::Exec(Vec::new()),
        None => CommandLine::Shell(rest.text().to_owned()),
    })
}

fn copy(instruction: &str, rest: Rest<'_>, flags: &Flags) -> Result<Copy, Problem> {
    let mut words = list(rest)?;
    let short = || {
        let problem = Problem::new(rest.span(), format!("{instruction} needs what to copy, and where to"));
        problem.help(format!("write `{instruction} from to`"))
    };
    let to = words.pop().filter(|_| !words.is_empty()).ok_or_else(short)?;
    if heredoc::opener(&to.text).is_some() {
        return Err(Problem::new(to.span, "a heredoc can't be where something is copied to"));
    }
    let source = |word: Word| {
        let opener = heredoc::opener(&word.text);
        let document = opener.and_then(|opener| {
            rest.line.heredocs.iter().find(|document| document.name == opener.name).cloned()
        });
        match document {
            Some(document) => CopySource::File(document, word.span),
            None => CopySource::Path(word),
        }
    };
    let is_add = instruction == "ADD";
    for word in words.iter().filter(|_| is_add) {
        refuse_remote(word)?;
    }
    if flags.bool("keep-git-dir")?.unwrap_or(false) {
        let span = flags.get("keep-git-dir").map_or(rest.span(), |flag| flag.span);
        let problem =
            Problem::new(span, "a `.git` can't be kept: what is in it differs with the version of Git");
        return Err(problem.help("an ARG can have the version that is to be shown"));
    }
    Ok(Copy {
        is_add,
        sources: words.into_iter().map(source).collect(),
        to,
        from: flags.word("from"),
        chown: flags.word("chown"),
        chmod: flags.word("chmod"),
        link: flags.bool("link")?.unwrap_or(false),
        parents: flags.bool("parents")?.unwrap_or(false),
        exclude: flags.words("exclude"),
        unpack: flags.bool("unpack")?,
        checksum: flags.word("checksum"),
    })
}

/// What changes without the Dockerfile is no input of a bake unless it is locked.
fn refuse_remote(word: &Word) -> Result<(), Problem> {
    let text = &word.text;
    if text.starts_with("github.com/") && text.matches('/').count() >= 2 {
        let problem = Problem::new(word.span, "a Git repository needs its whole address");
        let name = text.split('#').next().unwrap_or_default().trim_end_matches(".git");
        return Err(problem.help(format!("write `https://{name}.git`")));
    }
    if !text.starts_with("ftp://") {
        return Ok(());
    }
    let problem =
        Problem::new(word.span, "ADD of such a URL is not supported: it is neither http nor https nor Git");
    Err(problem.help(
        "put the files into the build context, or fetch them in a RUN of an image with `network = true`",
    ))
}

/// Refuses a repository whose commit may be another one tomorrow.
pub(super) fn unlocked_commit(span: Span) -> Problem {
    let problem = Problem::new(span, "the commit of this repository is not locked");
    problem.help("run `kiln lock`; an address can't have variables of the base image")
}

/// Refuses a URL whose file may be another one tomorrow.
pub(super) fn unlocked(span: Span) -> Problem {
    let problem = Problem::new(span, "the file of this URL is not locked");
    problem.help(
        "run `kiln lock`; where a variable of the base image is in the URL, add `--checksum=sha256:…` to the ADD",
    )
}

/// Whether this is fetched, and not copied.
pub(super) fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn run(rest: Rest<'_>, flags: &Flags) -> Result<Run, Problem> {
    let network = match flags.get("network") {
        None => None,
        Some(flag) => Some(match flag.value.as_deref() {
            Some("none") => Network::None,
            Some("default") => Network::Default,
            Some("host") => Network::Host(flag.span),
            _ => return Err(Problem::new(flag.value_span, "the network is `none`, `default` or `host`")),
        }),
    };
    if let Some(flag) = flags.get("security").filter(|flag| flag.value.as_deref() != Some("sandbox")) {
        return Err(Problem::new(flag.span, "a RUN can't leave the sandbox"));
    }
    let mounts = flags.all("mount").map(mounts::read).collect::<Result<_, _>>()?;
    let command = command(rest)?;
    if command == CommandLine::Exec(Vec::new()) {
        return Err(Problem::new(rest.span(), "RUN needs a command"));
    }
    Ok(Run { command, heredocs: rest.line.heredocs.clone(), mounts, network })
}

fn on_build(rest: Rest<'_>, escape: char) -> Result<Action, Problem> {
    let (name, _) = rest.split_first();
    let upper = name.text().to_ascii_uppercase();
    if matches!(upper.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Err(Problem::new(name.span(), format!("{upper} can't be in an ONBUILD")));
    }
    let action = action(rest, escape)?;
    let mut text = rest.text().to_owned();
    for document in &rest.line.heredocs {
        text.push_str(&format!("\n{}{}", document.content, document.name));
    }
    let inner = Instruction { span: rest.span(), text: rest.text().to_owned(), action };
    Ok(Action::OnBuild(Box::new(inner), text))
}
