//! The stages of a Dockerfile: what each is made from, and which of them are made at all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::SecretName;
use kiln_model::recipe::{DockerfileSource, ImageSource};

use super::instruction::{
    Action, CopySource, From, Instruction, MountKind, Network, SecretMount, SshMount, Word,
};
use super::mounts::{no_agent, no_network, not_given};
use super::parse;
use super::platform;
use super::problem::{DockerfileProblem, Problem, Span};
use super::scope::{Pins, RemoteFiles, Scope};
use super::shell::{self, Quotes};
use crate::nearest::nearest;
use crate::settings::Settings;

/// A Dockerfile of a stack, with all that decides what is made of it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) file: String,
    text: Arc<str>,
    pub(crate) escape: char,
    /// All stages; those that the target does not need are not looked at.
    pub(crate) stages: Vec<Stage>,
    /// The stage that the image is.
    pub(crate) target: usize,
    /// The values of the ARGs before the first FROM.
    pub(super) globals: Vec<(String, Option<String>)>,
    /// What the stack gives for ARGs.
    pub(super) args: BTreeMap<String, String>,
    /// Those of them that nothing declares.
    pub(crate) unused_args: Vec<String>,
    /// What the stack gives for the ids of secrets.
    pub(super) secrets: BTreeMap<String, SecretName>,
    /// The ids of those that no command mounts.
    pub(crate) unused_secrets: Vec<String>,
    /// Whether commands have the network unless they say otherwise.
    pub(super) network: bool,
    /// Whether commands may use the SSH agent.
    pub(super) ssh: bool,
}

/// One stage.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Its name, in lower case.
    pub(crate) name: Option<String>,
    /// What it starts from.
    pub(crate) from: Origin,
    /// Where its FROM names it.
    pub(crate) from_span: Span,
    pub(crate) instructions: Vec<Instruction>,
    /// What `--from` and mounts mean, by their text.
    pub(crate) origins: BTreeMap<String, Origin>,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing.
    Scratch,
    /// Another stage of the file.
    Stage(usize),
    /// What the stack gives for a name.
    Outside(ImageSource),
}

impl Plan {
    /// Reads a Dockerfile and finds out what its target needs.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn new(
        file: &str,
        text: &str,
        source: &DockerfileSource,
    ) -> Result<Self, Vec<DockerfileProblem>> {
        let text: Arc<str> = text.into();
        let located = |problems: Vec<Problem>| {
            problems.into_iter().map(|problem| DockerfileProblem::new(file, &text, problem)).collect()
        };
        let parsed = parse::parse(&text);
        let mut problems = parsed.problems;
        let mut drafts = Drafts { escape: parsed.escape, source, globals: Vec::new(), stages: Vec::new() };
        for instruction in parsed.instructions {
            if let Err(problem) = drafts.take(instruction) {
                problems.push(problem);
            }
        }
        if drafts.stages.is_empty() && problems.is_empty() {
            let end = Span { start: 0, end: text.trim_end().len().min(1) };
            problems.push(Problem::new(end, "the Dockerfile has no FROM"));
        }
        if !problems.is_empty() {
            return Err(located(problems));
        }
        let unused_args = drafts.unused_args();
        let unused_secrets = drafts.unused_secrets();
        let target = drafts.target().map_err(|problem| located(vec![problem]))?;
        let stages = drafts.resolve(target).map_err(located)?;
        let Drafts { escape, globals, .. } = drafts;
        let (args, network) = (source.args.clone(), source.network);
        Ok(Self {
            file: file.into(),
            escape,
            stages,
            target,
            globals,
            args,
            unused_args,
            secrets: source.secrets.clone(),
            unused_secrets,
            network,
            ssh: source.ssh,
            text,
        })
    }

    /// Says where a problem is.
    pub(crate) fn located(&self, problem: Problem) -> DockerfileProblem {
        DockerfileProblem::new(&self.file, &self.text, problem)
    }

    /// Says where something is, for an error that has more to say.
    pub(crate) fn line_of(&self, span: Span) -> String {
        let (line, _) = self.located(Problem::new(span, "")).position();
        format!("{}:{line}", self.file)
    }

    /// Finds the files of URLs that the stages add, as far as they can be known before what they are made from is there.
    pub(crate) fn remote_files(&self) -> RemoteFiles {
        let noted = RefCell::default();
        let mut settings: BTreeMap<usize, Settings> = BTreeMap::new();
        // What a stage starts from stands before it.
        for index in self.needed() {
            let stage = &self.stages[index];
            let mut inherited = match stage.from {
                Origin::Stage(from) => settings.get(&from).cloned().unwrap_or_default(),
                _ => Settings::default(),
            };
            let triggers = std::mem::take(&mut inherited.on_build);
            let triggers: Vec<Instruction> =
                triggers.iter().filter_map(|text| parse::parse_trigger(text).ok()).collect();
            let mut scope = Scope::new(self, stage, inherited, Pins::Noted(&noted));
            for instruction in triggers.iter().chain(&stage.instructions) {
                // What is wrong is told by whoever does it.
                let _ = scope.follow(instruction);
            }
            settings.insert(index, scope.settings);
        }
        noted.into_inner()
    }

    /// Returns the stages that the target needs, itself included.
    pub(crate) fn needed(&self) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut next = vec![self.target];
        while let Some(index) = next.pop() {
            if needed.insert(index) {
                next.extend(self.stages[index].stages());
            }
        }
        needed
    }
}

impl Stage {
    /// Everything that it takes files from.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &Origin> {
        std::iter::once(&self.from).chain(self.origins.values())
    }

    fn stages(&self) -> impl Iterator<Item = usize> {
        self.needs().filter_map(|origin| match origin {
            Origin::Stage(index) => Some(*index),
            _ => None,
        })
    }
}

/// What an instruction takes from elsewhere: the words of `--from`, and those of mounts.
pub(super) fn froms(action: &Action) -> Vec<&Word> {
    match action {
        Action::Copy(copy) => copy.from.iter().collect(),
        Action::Run(run) => {
            let mounts = run.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Bind { from, .. } => from.as_ref(),
                MountKind::Cache { seed, .. } => seed.as_ref().map(|(from, _)| from),
                _ => None,
            });
            mounts.collect()
        }
        _ => Vec::new(),
    }
}

/// What is done at last: now, or on what is made from it.
fn inner(action: &Action) -> &Action {
    match action {
        Action::OnBuild(inner, _) => &inner.action,
        action => action,
    }
}

/// The secrets that a command mounts, with their places and targets.
fn secrets(action: &Action) -> impl Iterator<Item = (Span, &SecretMount, &str)> {
    let mounts = match action {
        Action::Run(run) => run.mounts.as_slice(),
        _ => &[],
    };
    mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Secret(secret) => Some((mount.span, secret, mount.target.as_str())),
        _ => None,
    })
}

/// Stages whose words are not looked up yet.
struct Drafts<'a> {
    escape: char,
    source: &'a DockerfileSource,
    globals: Vec<(String, Option<String>)>,
    stages: Vec<(From, Vec<Instruction>)>,
}

impl Drafts<'_> {
    fn take(&mut self, instruction: Instruction) -> Result<(), Problem> {
        if let Action::From(from) = instruction.action {
            self.stages.push((from, Vec::new()));
            return Ok(());
        }
        if let Action::Copy(copy) = &instruction.action
            && let Some(CopySource::Path(word)) = copy.sources.iter().find(
                |source| matches!(source, CopySource::Path(word) if copy.from.is_none() && leaves(&word.text)),
            )
        {
            let problem = Problem::new(word.span, "this leaves the build context");
            return Err(problem.help("set `context` of the image to a folder that holds it"));
        }
        match (&instruction.action, self.stages.last_mut()) {
            (_, Some((_, instructions))) => instructions.push(instruction),
            (Action::Arg(args), None) => {
                for (name, value) in args {
                    let value = self.global(name, value.as_ref())?;
                    self.globals.push((name.text.clone(), value));
                }
            }
            (_, None) => {
                return Err(Problem::new(instruction.span, "only ARG may stand before the first FROM"));
            }
        }
        Ok(())
    }

    /// Finds what the stack gives and no ARG of any stage declares.
    fn unused_args(&self) -> Vec<String> {
        let actions = self.stages.iter().flat_map(|(_, instructions)| instructions).map(|it| &it.action);
        let of_stages = actions.filter_map(|action| match action {
            Action::Arg(args) => Some(args),
            // What is made from this one has it.
            Action::OnBuild(inner, _) => match &inner.action {
                Action::Arg(args) => Some(args),
                _ => None,
            },
            _ => None,
        });
        let of_stages = of_stages.flatten().map(|(name, _)| name.text.as_str());
        let global = self.globals.iter().map(|(name, _)| name.as_str());
        let declared: BTreeSet<&str> = of_stages.chain(global).chain(platform::PROXIES).collect();
        self.source.args.keys().filter(|name| !declared.contains(name.as_str())).cloned().collect()
    }

    /// Finds the secrets that the stack gives and no command mounts.
    fn unused_secrets(&self) -> Vec<String> {
        let actions =
            self.stages.iter().flat_map(|(_, instructions)| instructions).map(|it| inner(&it.action));
        let mounts = actions.flat_map(secrets).map(|(_, secret, target)| match secret.id.as_str() {
            "" => target.rsplit('/').next().unwrap_or_default(),
            id => id,
        });
        let used: BTreeSet<&str> = mounts.collect();
        // What a variable stands for is known later.
        let is_known = |id: &&String| !used.contains(id.as_str()) && !used.iter().any(|id| id.contains('$'));
        self.source.secrets.keys().filter(is_known).cloned().collect()
    }

    fn global(&self, name: &Word, value: Option<&Word>) -> Result<Option<String>, Problem> {
        if let Some(given) = self.source.args.get(&name.text) {
            return Ok(Some(given.clone()));
        }
        value.map(|value| self.expanded(value)).transpose()
    }

    /// Replaces variables by the ARGs before the first FROM.
    fn expanded(&self, word: &Word) -> Result<String, Problem> {
        let lookup = |name: &str| match self.globals.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => value.clone(),
            None => platform::value(name).map(Into::into),
        };
        shell::expand(&word.text, self.escape, Quotes::Drop, &lookup)
            .map_err(|reason| Problem::new(word.span, reason))
    }

    /// Finds the stage that is asked for, by its name or number; the last where none is.
    fn target(&self) -> Result<usize, Problem> {
        let last = self.stages.len() - 1;
        let Some(wanted) = &self.source.target else { return Ok(last) };
        let lower = wanted.to_ascii_lowercase();
        let number = wanted.parse().ok().filter(|index| *index <= last);
        self.named(&lower, self.stages.len()).or(number).ok_or_else(|| {
            let names = self.stages.iter().filter_map(|(from, _)| Some(from.name.as_ref()?.text.as_str()));
            let message = format!("there is no stage `{wanted}`, which is the `target` of the image");
            Problem::new(self.stages[last].0.image.span, message).meant(nearest(&lower, names))
        })
    }

    /// The last stage of a name among the first `count`.
    fn named(&self, name: &str, count: usize) -> Option<usize> {
        let is = |index: &usize| self.stages[*index].0.name.as_ref().is_some_and(|word| word.text == name);
        (0..count).rev().find(is)
    }

    /// Looks up what the stages that the target needs are made from.
    fn resolve(&mut self, target: usize) -> Result<Vec<Stage>, Vec<Problem>> {
        let empty = |(from, _): &(From, _)| Stage {
            name: from.name.as_ref().map(|name| name.text.clone()),
            from: Origin::Scratch,
            from_span: from.image.span,
            instructions: Vec::new(),
            origins: BTreeMap::new(),
        };
        let mut stages: Vec<Stage> = self.stages.iter().map(empty).collect();
        let (mut problems, mut done, mut next) = (Vec::new(), BTreeSet::new(), vec![target]);
        while let Some(index) = next.pop() {
            if !done.insert(index) {
                continue;
            }
            let instructions = std::mem::take(&mut self.stages[index].1);
            match self.stage(index, instructions, &mut stages[index]) {
                Ok(()) => next.extend(stages[index].stages()),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() {
            problems.extend(circle(&stages, target));
        }
        problems.sort_by_key(|problem| problem.span.start);
        if problems.is_empty() { Ok(stages) } else { Err(problems) }
    }

    fn stage(
        &self,
        index: usize,
        instructions: Vec<Instruction>,
        stage: &mut Stage,
    ) -> Result<(), Vec<Problem>> {
        let from = &self.stages[index].0;
        // A name that the stack gives stands in for the whole stage.
        if let Some(given) = stage.name.as_deref().and_then(|name| self.given(name)) {
            stage.from = Origin::Outside(given.clone());
            return Ok(());
        }
        let mut problems = Vec::new();
        match self.from(index, from) {
            Ok(origin) => stage.from = origin,
            Err(problem) => problems.push(problem),
        }
        for (span, secret, _) in instructions.iter().flat_map(|instruction| secrets(&instruction.action)) {
            let is_known = secret.id.contains('$') || self.source.secrets.contains_key(&secret.id);
            if secret.required && !secret.id.is_empty() && !is_known {
                problems.push(not_given(&secret.id, span, self.source.secrets.keys().map(String::as_str)));
            }
        }
        for instruction in &instructions {
            let Action::Run(run) = &instruction.action else { continue };
            if let (Some(Network::Host(span)), false) = (run.network, self.source.network) {
                problems.push(no_network(span));
            }
            for mount in &run.mounts {
                if let MountKind::Ssh(SshMount { id, required: true, .. }) = &mount.kind
                    && !self.source.ssh
                {
                    problems.push(no_agent(id, mount.span));
                }
            }
        }
        for word in instructions.iter().flat_map(|instruction| froms(inner(&instruction.action))) {
            match self.origin(word) {
                Ok(origin) => drop(stage.origins.insert(word.text.clone(), origin)),
                Err(problem) => problems.push(problem),
            }
        }
        stage.instructions = instructions;
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn from(&self, index: usize, from: &From) -> Result<Origin, Problem> {
        if let Some(word) = &from.platform {
            platform::check(&self.expanded(word)?).map_err(|reason| Problem::new(word.span, reason))?;
        }
        let image = self.expanded(&from.image)?;
        if image.is_empty() {
            let problem = Problem::new(from.image.span, "FROM names nothing: its variables are not set");
            return Err(problem.help("give a default before the first FROM, as in `ARG NAME=value`"));
        }
        if let Some(stage) = self.named(&image.to_ascii_lowercase(), index) {
            return Ok(Origin::Stage(stage));
        }
        self.outside(&image, from.image.span)
    }

    /// What `--from` means: a stage by name or number, or what the stack gives.
    fn origin(&self, word: &Word) -> Result<Origin, Problem> {
        if word.text.contains('$') {
            let problem = Problem::new(word.span, "what files are taken from can't be named by a variable");
            return Err(problem.help("name a stage whose FROM has the variable"));
        }
        let count = self.stages.len();
        if let Some(stage) = self.named(&word.text.to_ascii_lowercase(), count) {
            return Ok(Origin::Stage(stage));
        }
        if let Ok(number) = word.text.parse::<usize>() {
            if number < count {
                return Ok(Origin::Stage(number));
            }
            let message = format!("there is no stage {number}: the stages are 0 to {}", count - 1);
            return Err(Problem::new(word.span, message));
        }
        self.outside(&word.text, word.span)
    }

    /// Finds what is neither a stage nor nothing. All that a Dockerfile may take from outside of itself comes through here.
    fn outside(&self, reference: &str, span: Span) -> Result<Origin, Problem> {
        if let Some(given) = self.given(reference) {
            return Ok(Origin::Outside(given.clone()));
        }
        if reference == "scratch" {
            return Ok(Origin::Scratch);
        }
        if ["oci:.", "oci:/", "docker-archive:"].iter().any(|kind| reference.starts_with(kind)) {
            let problem = Problem::new(span, "an image of a folder or a file is named by the stack alone");
            return Err(problem
                .help(format!("give it a name in `contexts` of the image: `{{ NAME = \"{reference}\" }}`")));
        }
        let names = self.stages.iter().filter_map(|(from, _)| Some(from.name.as_ref()?.text.as_str()));
        let names = names.chain(self.source.contexts.keys().map(String::as_str));
        // A bare word that is nearly the name of a stage is a slip of the pen, and no image that anybody should fetch.
        let is_bare = !reference.contains(['/', ':', '@']);
        let meant = nearest(reference, names).filter(|_| is_bare);
        let is_name = reference.bytes().all(|byte| byte.is_ascii_graphic());
        if meant.is_none() && is_name {
            return Ok(Origin::Outside(ImageSource::Registry(reference.to_owned())));
        }
        let message = format!("`{}` is neither a stage nor a context", reference.escape_debug());
        let help = "an image of a registry has a tag or a path, as in `debian:12`";
        Err(Problem::new(span, message).help(help).meant(meant))
    }

    fn given(&self, reference: &str) -> Option<&ImageSource> {
        let familiar = familiar(reference);
        let is = |(name, _): &(&String, _)| self::familiar(name) == familiar;
        self.source.contexts.iter().find(is).map(|(_, source)| source)
    }
}

/// The name of an image without what every reader adds in thought.
fn familiar(reference: &str) -> &str {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name)
}

/// Whether a path of the context leads out of it.
fn leaves(path: &str) -> bool {
    let mut depth = 0_i64;
    path.split('/').any(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

/// Finds stages that are made from each other.
fn circle(stages: &[Stage], target: usize) -> Option<Problem> {
    let mut finished = BTreeSet::new();
    let mut path = vec![(target, stages[target].stages().collect::<Vec<_>>())];
    while let Some((index, left)) = path.last_mut() {
        let index = *index;
        let Some(next) = left.pop() else {
            finished.insert(index);
            path.pop();
            continue;
        };
        if path.iter().any(|(on_the_way, _)| *on_the_way == next) {
            let message = "this stage is made from itself, through what it copies";
            return Some(Problem::new(stages[next].from_span, message));
        }
        if !finished.contains(&next) {
            path.push((next, stages[next].stages().collect()));
        }
    }
    None
}
