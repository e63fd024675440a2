//! What a stage has come to while its instructions are followed: variables, settings, and what is to be done next.
//!
//! Source: BuildKit's `frontend/dockerfile/dockerfile2llb/convert.go`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use kiln_model::instance::DockerHealth;
use kiln_model::{Digest, SecretName};

use super::instruction::{
    Action, CommandLine, Copy, CopySource, Health, Instruction, Mount, MountKind, Network, Run, SecretMount,
    SshMount, Word,
};
use super::mode::ModeChange;
use super::mounts::{no_agent, no_network, not_given};
use super::parse::{is_url, unlocked, unlocked_commit};
use super::plan::{Origin, Plan, Stage};
use super::problem::{Problem, Span};
use super::shell::{self, Quotes};
use super::{heredoc, platform, ports};
use crate::bake::Repository;
use crate::git::{Address, CommitPrefix, LockedCommit};
use crate::lock::Lock;
use crate::settings::Settings;
use crate::workbench::DEFAULT_PATH;

/// Where the script of a heredoc with `#!` lies in a step.
pub(crate) const SCRIPT: &str = "/.kiln/heredoc";

/// What is known of what is added from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pins<'a> {
    /// What it is locked to.
    Locked(&'a Lock),
    /// Nothing: it is only noted, and nothing is done.
    Noted(&'a RefCell<RemoteFiles>),
}

/// The files of URLs and the repositories that a Dockerfile adds.
#[derive(Debug, Default)]
pub(crate) struct RemoteFiles {
    /// Those that are to be locked.
    pub(crate) bare: BTreeSet<String>,
    /// Those that have a checksum.
    pub(crate) checked: BTreeMap<String, Digest>,
    /// Repositories, with what their checksums promise.
    pub(crate) repositories: BTreeMap<String, Repository>,
}

/// A stage on its way.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    pins: Pins<'a>,
    /// How an image of the stage as it is now would run.
    pub(crate) settings: Settings,
    /// The ARGs that were declared, in order; a later one wins.
    args: Vec<(String, Option<String>)>,
    /// Whether the stage itself has a CMD, which an ENTRYPOINT then leaves alone.
    has_cmd: bool,
}

/// What an instruction changes besides settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Nothing.
    Nothing,
    /// The working folder is made where it is missing.
    Folder(String),
    Copy(CopyTask),
    Run(RunTask),
}

/// Files into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyTask {
    pub(crate) span: Span,
    /// None means the build context.
    pub(crate) from: Option<Origin>,
    pub(crate) sources: Vec<TaskSource>,
    /// Absolute; a `/` at its end makes it a folder.
    pub(crate) to: String,
    pub(crate) owner: Option<Word>,
    pub(crate) mode: Option<ModeChange>,
    pub(crate) link: bool,
    pub(crate) parents: bool,
    pub(crate) exclude: Vec<String>,
    /// Whether archives of the context are unpacked.
    pub(crate) unpack: bool,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskSource {
    Path(Word),
    File { name: String, text: String, span: Span },
    Url(RemoteFile),
    Git(RemoteCommit),
}

/// A file of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) url: String,
    /// What it must hash to.
    pub(crate) digest: Digest,
    /// Whether kiln.lock says so, and not the Dockerfile.
    pub(crate) is_locked: bool,
    pub(crate) span: Span,
}

/// A commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteCommit {
    /// As it is written, and as kiln.lock has it.
    pub(crate) text: String,
    pub(crate) address: Address,
    pub(crate) locked: LockedCommit,
    pub(crate) span: Span,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunTask {
    pub(crate) argv: Vec<String>,
    /// The variables of the stage and its ARGs.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) workdir: String,
    pub(crate) user: String,
    pub(crate) network: bool,
    pub(crate) mounts: Vec<TaskMount>,
    /// The content of [`SCRIPT`].
    pub(crate) script: Option<String>,
}

impl RunTask {
    /// Returns what its mounts show: whose files, and which.
    pub(crate) fn binds(&self) -> impl Iterator<Item = (Option<&Origin>, &str)> {
        self.mounts.iter().filter_map(TaskMount::shows)
    }
}

/// Something that a command sees beside the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskMount {
    pub(crate) span: Span,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) what: Mounted,
}

impl TaskMount {
    /// Returns what it shows at first: whose files, and which; none where it is made for the command.
    pub(crate) fn shows(&self) -> Option<(Option<&Origin>, &str)> {
        match &self.what {
            Mounted::Bind { from, source } => Some((from.as_ref(), source.as_str())),
            Mounted::Cache { seed: Some((from, source)), .. } => Some((Some(from), source.as_str())),
            _ => None,
        }
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mounted {
    /// Part of a tree; no origin means the build context.
    Bind { from: Option<Origin>, source: String },
    /// A folder that stays between bakes, and what it begins with.
    Cache { id: String, mode: u32, uid: u32, gid: u32, seed: Option<(Origin, String)> },
    /// Memory; zero bytes means the default.
    Tmpfs { size: u64 },
    /// A value that only the command sees.
    Secret(TaskSecret),
    /// The SSH agent's socket.
    Ssh(TaskSsh),
}

/// The SSH agent of whoever bakes, for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskSsh {
    /// Whether the stack gives it.
    pub(crate) is_given: bool,
    /// Whether the command can't do without it.
    pub(crate) required: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A secret of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskSecret {
    pub(crate) id: String,
    /// What the stack gives for it; none where it gives nothing.
    pub(crate) given: Option<SecretName>,
    /// Whether it is a file at the target.
    pub(crate) has_file: bool,
    /// The variable that has its value.
    pub(crate) env: Option<String>,
    /// Whether the command can't do without it.
    pub(crate) required: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl<'a> Scope<'a> {
    /// Begins a stage of a plan on what it is made from.
    pub(crate) fn new(plan: &'a Plan, stage: &'a Stage, mut settings: Settings, pins: Pins<'a>) -> Self {
        if stage.from == Origin::Scratch {
            settings.set_env("PATH", DEFAULT_PATH.to_owned());
            settings.run.workdir = "/".into();
        }
        Self { plan, stage, pins, settings, args: Vec::new(), has_cmd: false }
    }

    /// Follows one instruction.
    pub(crate) fn follow(&mut self, instruction: &Instruction) -> Result<Task, Problem> {
        match &instruction.action {
            Action::Copy(copy) => return self.copy(copy, instruction.span).map(Task::Copy),
            Action::Run(run) => return self.run(run, instruction.span).map(Task::Run),
            Action::Workdir(word) => {
                let path = absolute(&self.settings.run.workdir, &self.expand(word)?);
                self.settings.run.workdir.clone_from(&path);
                return Ok(Task::Folder(path));
            }
            Action::Arg(args) => self.declare(args)?,
            Action::Env(pairs) => {
                for (name, value) in self.pairs(pairs)? {
                    self.settings.set_env(&name, value);
                }
            }
            Action::Label(pairs) => {
                let pairs = self.pairs(pairs)?;
                self.settings.run.labels.extend(pairs);
            }
            Action::User(word) => self.settings.run.user = self.some(word)?,
            Action::Expose(words) => self.expose(words)?,
            Action::Volume(words) => self.volumes(words)?,
            Action::StopSignal(word) => self.stop_signal(word)?,
            Action::Shell(words) => self.settings.shell.clone_from(words),
            Action::Cmd(line) => {
                self.settings.run.command = self.argv(line);
                self.has_cmd = true;
            }
            Action::Entrypoint(line) => {
                self.settings.run.entrypoint = self.argv(line);
                if !self.has_cmd {
                    self.settings.run.command.clear();
                }
            }
            Action::Healthcheck(health) => {
                let health = self.health(health.as_ref());
                self.settings.run.health = health.health(&self.shell());
                self.settings.health = Some(health);
            }
            Action::OnBuild(_, text) => self.settings.on_build.push(text.clone()),
            Action::Maintainer(word) => self.settings.author.clone_from(&word.text),
            Action::From(_) => unreachable!("a FROM begins a stage and is in none"),
        }
        Ok(Task::Nothing)
    }

    /// Returns the value of a variable: one of the image before an ARG.
    fn lookup(&self, name: &str) -> Option<String> {
        let arg = || self.args.iter().rev().find(|(known, _)| known == name)?.1.clone();
        self.settings.run.env.get(name).cloned().or_else(arg)
    }

    fn expand(&self, word: &Word) -> Result<String, Problem> {
        shell::expand(&word.text, self.plan.escape, Quotes::Drop, &|name| self.lookup(name))
            .map_err(|reason| Problem::new(word.span, reason))
    }

    /// Expands what may not be empty.
    fn some(&self, word: &Word) -> Result<String, Problem> {
        let text = self.expand(word)?;
        if text.trim().is_empty() {
            let problem = Problem::new(word.span, "nothing is left of this: its variables are not set");
            return Err(
                problem.help("an ARG before the first FROM is declared again in the stage that uses it")
            );
        }
        if text.contains('\0') {
            return Err(Problem::new(word.span, "text can't hold a zero byte"));
        }
        Ok(text)
    }

    /// Expands names and values by the variables as they were before all of them.
    fn pairs(&self, pairs: &[(Word, Word)]) -> Result<Vec<(String, String)>, Problem> {
        let pair = |(name, value): &(Word, Word)| {
            let value = self.expand(value)?;
            if value.contains('\0') {
                return Err(Problem::new(name.span, "text can't hold a zero byte"));
            }
            Ok((self.some(name)?, value))
        };
        pairs.iter().map(pair).collect()
    }

    fn declare(&mut self, args: &[(Word, Option<Word>)]) -> Result<(), Problem> {
        for (name, value) in args {
            let given = self.plan.args.get(&name.text).cloned();
            let default = value.as_ref().map(|value| self.expand(value)).transpose()?;
            let global = || {
                let known = self.plan.globals.iter().rev().find(|(known, _)| *known == name.text);
                known.and_then(|(_, value)| value.clone())
            };
            let own = || platform::value(&name.text).map(str::to_owned);
            let value = given.or(default).or_else(global).or_else(own);
            self.args.push((name.text.clone(), value));
        }
        Ok(())
    }

    fn shell(&self) -> Vec<String> {
        match self.settings.shell.as_slice() {
            [] => vec!["/bin/sh".into(), "-c".into()],
            shell => shell.to_vec(),
        }
    }

    fn argv(&self, line: &CommandLine) -> Vec<String> {
        match line {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(text) => [self.shell(), vec![text.clone()]].concat(),
        }
    }

    fn health(&self, health: Option<&Health>) -> DockerHealth {
        let Some(health) = health else {
            return DockerHealth { test: vec!["NONE".into()], ..DockerHealth::default() };
        };
        let test = match &health.command {
            CommandLine::Exec(words) => [vec!["CMD".to_owned()], words.clone()].concat(),
            CommandLine::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
        };
        let Health { interval, timeout, start_period, start_interval, retries, .. } = *health;
        DockerHealth { test, interval, timeout, start_period, start_interval, retries }
    }

    fn expose(&mut self, words: &[Word]) -> Result<(), Problem> {
        for word in words {
            let texts = shell::expand_words(&word.text, self.plan.escape, &|name| self.lookup(name));
            for text in texts.map_err(|reason| Problem::new(word.span, reason))? {
                let ports = ports::read(&text).map_err(|reason| Problem::new(word.span, reason))?;
                self.settings.run.expose.extend(ports);
            }
        }
        self.settings.run.expose.sort();
        self.settings.run.expose.dedup();
        Ok(())
    }

    fn volumes(&mut self, words: &[Word]) -> Result<(), Problem> {
        for word in words {
            let path = self.some(word)?;
            if !path.starts_with('/') {
                return Err(Problem::new(word.span, format!("`{path}` is no absolute path")));
            }
            self.settings.run.volumes.push(absolute("/", path.trim_end_matches('/')));
        }
        self.settings.run.volumes.sort();
        self.settings.run.volumes.dedup();
        Ok(())
    }

    fn stop_signal(&mut self, word: &Word) -> Result<(), Problem> {
        let text = self.some(word)?;
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let number = text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
        if !number && !SIGNALS.contains(&name) && !name.starts_with("RTMIN") && !name.starts_with("RTMAX") {
            return Err(Problem::new(word.span, format!("`{}` is no signal", text.escape_debug())));
        }
        self.settings.run.stop_signal = text;
        Ok(())
    }

    fn copy(&self, copy: &Copy, span: Span) -> Result<CopyTask, Problem> {
        let source = |source: &CopySource| self.source(copy, source);
        let sources = copy.sources.iter().map(source).collect::<Result<Vec<_>, _>>()?;
        let is_remote =
            sources.iter().any(|source| matches!(source, TaskSource::Url(_) | TaskSource::Git(_)));
        if let (Some(word), false) = (&copy.checksum, is_remote) {
            return Err(Problem::new(
                word.span,
                "a checksum is of the file of a URL or of a commit, and none is added here",
            ));
        }
        let to = self.expand(&copy.to)?;
        if to.contains('\0') {
            return Err(Problem::new(copy.to.span, "a path can't hold a zero byte"));
        }
        let is_folder = to.ends_with('/') || matches!(to.as_str(), "" | ".") || to.ends_with("/.");
        let mut target = absolute(&self.settings.run.workdir, &to);
        if is_folder && target != "/" {
            target.push('/');
        }
        let mode = copy.chmod.as_ref().map(|word| {
            let text = self.some(word)?;
            ModeChange::parse(&text).map_err(|reason| Problem::new(word.span, reason))
        });
        let owner = copy.chown.as_ref().map(|word| {
            let text = self.some(word)?;
            Ok::<_, Problem>(Word { text, span: word.span })
        });
        let exclude = copy.exclude.iter().map(|word| self.expand(word)).collect::<Result<_, _>>()?;
        Ok(CopyTask {
            span,
            from: copy.from.as_ref().map(|word| self.origin(word)).transpose()?,
            sources,
            to: target,
            owner: owner.transpose()?,
            mode: mode.transpose()?,
            link: copy.link,
            parents: copy.parents,
            exclude,
            // What is fetched is an archive only if that is said.
            unpack: copy.is_add && copy.unpack.unwrap_or(!is_remote),
        })
    }

    fn source(&self, copy: &Copy, source: &CopySource) -> Result<TaskSource, Problem> {
        match source {
            CopySource::Path(word) => {
                let text = self.expand(word)?;
                if copy.is_add && Address::is_one(&text) {
                    return self.repository(copy, text, word).map(TaskSource::Git);
                }
                if copy.is_add && is_url(&text) {
                    return self.remote(copy, text, word).map(TaskSource::Url);
                }
                Ok(TaskSource::Path(Word { text, span: word.span }))
            }
            CopySource::File(document, span) => {
                let mut text = document.chomped();
                if document.expand {
                    text = shell::expand(&text, '\\', Quotes::Plain, &|name| self.lookup(name))
                        .map_err(|reason| Problem::new(*span, reason))?;
                }
                Ok(TaskSource::File { name: document.name.clone(), text, span: *span })
            }
        }
    }

    /// A file of a URL, which its checksum locks, or kiln.lock.
    fn remote(&self, copy: &Copy, url: String, word: &Word) -> Result<RemoteFile, Problem> {
        let span = word.span;
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Problem::new(span, "a URL has no blanks, and no letters but those of ASCII"));
        }
        let checksum =
            copy.checksum.as_ref().map(|checksum| self.checksum(copy, checksum, span)).transpose()?;
        let is_locked = checksum.is_none();
        let digest = match (self.pins, checksum) {
            (Pins::Locked(_), Some(checksum)) => checksum,
            (Pins::Locked(lock), None) => *lock.urls.get(&url).ok_or_else(|| unlocked(span))?,
            (Pins::Noted(noted), Some(checksum)) => {
                noted.borrow_mut().checked.insert(url.clone(), checksum);
                checksum
            }
            (Pins::Noted(noted), None) => {
                if self.is_known(word) {
                    noted.borrow_mut().bare.insert(url.clone());
                }
                // Of what is noted nothing is done.
                Digest::new([0; 32])
            }
        };
        Ok(RemoteFile { url, digest, is_locked, span })
    }

    fn checksum(&self, copy: &Copy, word: &Word, url: Span) -> Result<Digest, Problem> {
        if copy.sources.len() > 1 {
            let problem = Problem::new(url, "a URL with a checksum is added alone: it is of one file");
            return Err(problem.help("write an ADD for each"));
        }
        self.expand(word)?.parse().map_err(|_| {
            let problem = Problem::new(word.span, "the checksum is not a sha256");
            problem.help("write `--checksum=sha256:` and 64 hexadecimal digits")
        })
    }

    /// A repository, whose commit kiln.lock has.
    fn repository(&self, copy: &Copy, text: String, word: &Word) -> Result<RemoteCommit, Problem> {
        let span = word.span;
        let address = Address::parse(&text).map_err(|reason| Problem::new(span, reason))?;
        let promised = copy.checksum.as_ref().map(|word| self.promised(copy, word, span)).transpose()?;
        let locked = match self.pins {
            Pins::Locked(lock) => {
                let locked = lock.commits.get(&text).ok_or_else(|| unlocked_commit(span))?;
                if let Some(promised) = promised.filter(|promised| !promised.is_of(&locked.commit)) {
                    let commit = &locked.commit;
                    let problem =
                        format!("kiln.lock has the commit {commit}, and the checksum is {promised}");
                    return Err(Problem::new(span, problem).help("run `kiln lock`"));
                }
                locked.clone()
            }
            Pins::Noted(noted) => {
                if self.is_known(word) {
                    let asked = Repository { promised, place: self.plan.line_of(span) };
                    noted.borrow_mut().repositories.entry(text.clone()).or_insert(asked);
                }
                // Of what is noted nothing is done.
                LockedCommit { commit: String::new(), files: Digest::new([0; 32]) }
            }
        };
        Ok(RemoteCommit { text, address, locked, span })
    }

    fn promised(&self, copy: &Copy, word: &Word, at: Span) -> Result<CommitPrefix, Problem> {
        if copy.sources.len() > 1 {
            let problem =
                Problem::new(at, "a repository with a checksum is added alone: it is of one commit");
            return Err(problem.help("write an ADD for each"));
        }
        CommitPrefix::parse(&self.expand(word)?).ok_or_else(|| {
            let problem = Problem::new(word.span, "the checksum of a repository is a commit");
            problem.help("write `--checksum=` and the commit's 40 hexadecimal digits")
        })
    }

    /// Whether all variables of a word are known here: what only the base image sets is known when it is there.
    fn is_known(&self, word: &Word) -> bool {
        let is_known = Cell::new(true);
        let lookup = |name: &str| {
            let value = self.lookup(name);
            is_known.set(is_known.get() && value.is_some());
            value
        };
        shell::expand(&word.text, self.plan.escape, Quotes::Drop, &lookup).is_ok() && is_known.get()
    }

    /// Finds what was looked up when the stages were: an ONBUILD of an image may name what nobody knew of.
    fn origin(&self, word: &Word) -> Result<Origin, Problem> {
        self.stage.origins.get(&word.text).cloned().ok_or_else(|| {
            let message = format!("an ONBUILD of the image takes files from `{}`", word.text.escape_debug());
            Problem::new(word.span, message).help("name it in this Dockerfile, too")
        })
    }

    fn run(&self, run: &Run, span: Span) -> Result<RunTask, Problem> {
        let (argv, script) = self.command(run, span)?;
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        for name in platform::PROXIES {
            env.extend(self.plan.args.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        for (name, value) in &self.args {
            match value {
                Some(value) => drop(env.insert(name.clone(), value.clone())),
                None => drop(env.remove(name)),
            }
        }
        env.extend(self.settings.run.env.clone());
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            let expand = |text: &str| self.expand(&Word { text: text.to_owned(), span: mount.span });
            let target = absolute(&self.settings.run.workdir, &expand(&mount.target)?);
            let what = match &mount.kind {
                MountKind::Secret(secret) => {
                    mounts.push(self.secret(mount, secret)?);
                    continue;
                }
                MountKind::Ssh(ssh) => {
                    let number =
                        mounts.iter().filter(|it: &&TaskMount| matches!(it.what, Mounted::Ssh(_))).count();
                    mounts.push(self.ssh(mount, ssh, number)?);
                    continue;
                }
                MountKind::Tmpfs { size } => Mounted::Tmpfs { size: *size },
                MountKind::Bind { from, source } => Mounted::Bind {
                    from: from.as_ref().map(|word| self.origin(word)).transpose()?,
                    source: expand(source)?,
                },
                MountKind::Cache { id, mode, uid, gid, seed } => {
                    let id = expand(id)?;
                    let id = if id.is_empty() { target.clone() } else { id };
                    let seed = seed.as_ref().map(|(from, source)| Ok((self.origin(from)?, expand(source)?)));
                    Mounted::Cache { id, mode: *mode, uid: *uid, gid: *gid, seed: seed.transpose()? }
                }
            };
            mounts.push(TaskMount { span: mount.span, target, read_only: mount.read_only, what });
        }
        let workdir = match self.settings.run.workdir.as_str() {
            "" => "/".into(),
            path => path.to_owned(),
        };
        let user = self.settings.run.user.clone();
        if let (Some(Network::Host(span)), false) = (run.network, self.plan.network) {
            return Err(no_network(span));
        }
        let network = self.plan.network && run.network != Some(Network::None);
        Ok(RunTask { argv, env, workdir, user, network, mounts, script })
    }

    /// A secret that the image is given, or one that it can do without.
    fn secret(&self, mount: &Mount, secret: &SecretMount) -> Result<TaskMount, Problem> {
        let expand = |text: &str| self.expand(&Word { text: text.to_owned(), span: mount.span });
        let (id, target) = (expand(&secret.id)?, expand(&mount.target)?);
        let last = |path: &str| path.rsplit('/').find(|name| !name.is_empty()).unwrap_or_default().to_owned();
        let id = if id.is_empty() { last(&target) } else { id };
        let given = self.plan.secrets.get(&id).cloned();
        if given.is_none() && secret.required {
            return Err(not_given(&id, mount.span, self.plan.secrets.keys().map(String::as_str)));
        }
        let has_file = secret.env.is_none() || !target.is_empty();
        let target = match target.as_str() {
            "" => format!("/run/secrets/{}", last(&id)),
            target => absolute(&self.settings.run.workdir, target),
        };
        let SecretMount { env, required, mode, uid, gid, .. } = secret.clone();
        let what = Mounted::Secret(TaskSecret { id, given, has_file, env, required, mode, uid, gid });
        Ok(TaskMount { span: mount.span, target, read_only: true, what })
    }

    /// The SSH agent, or one that it can do without.
    fn ssh(&self, mount: &Mount, ssh: &SshMount, number: usize) -> Result<TaskMount, Problem> {
        let expand = |text: &str| self.expand(&Word { text: text.to_owned(), span: mount.span });
        let (id, target) = (expand(&ssh.id)?, expand(&mount.target)?);
        let is_given = self.plan.ssh && matches!(id.as_str(), "" | "default");
        if ssh.required && !is_given {
            return Err(no_agent(&id, mount.span));
        }
        let target = match target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{number}"),
            target => absolute(&self.settings.run.workdir, target),
        };
        let SshMount { required, mode, uid, gid, .. } = *ssh;
        let what = Mounted::Ssh(TaskSsh { is_given, required, mode, uid, gid });
        Ok(TaskMount { span: mount.span, target, read_only: true, what })
    }

    /// Returns what is started, and the script that it may be given.
    fn command(&self, run: &Run, span: Span) -> Result<(Vec<String>, Option<String>), Problem> {
        let (text, first) = match (&run.command, run.heredocs.first()) {
            (CommandLine::Exec(_), Some(_)) => {
                return Err(Problem::new(span, "a RUN in the JSON form can't have a heredoc"));
            }
            (line, None) => return Ok((self.argv(line), None)),
            (CommandLine::Shell(text), Some(first)) => (text, first),
        };
        if heredoc::opener(text).is_none() {
            // The shell reads the heredocs by itself.
            let mut full = text.clone();
            for document in &run.heredocs {
                full.push_str(&format!("\n{}{}", document.content, document.name));
            }
            return Ok(([self.shell(), vec![full]].concat(), None));
        }
        let content = first.chomped();
        if first.content.starts_with("#!") {
            return Ok(([self.shell(), vec![SCRIPT.to_owned()]].concat(), Some(content)));
        }
        Ok(([self.shell(), vec![content]].concat(), None))
    }
}

/// The names of Linux' signals, without `SIG`.
const SIGNALS: [&str; 32] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Joins a path to a folder and resolves `.` and `..`, which stops at the root.
pub(crate) fn absolute(folder: &str, path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let folder = if path.starts_with('/') { "" } else { folder };
    for name in folder.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}
