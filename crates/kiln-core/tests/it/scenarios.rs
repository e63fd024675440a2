//! Scenarios are text files: a line that begins with `>` is a command, the lines after it are what must follow.
//!
//! With `KILN_BLESS=1` in the environment what does follow is written down; read the difference before committing it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use kiln_core::{Command, Observation, Tally};
use kiln_model::instance::ExitStatus;
use kiln_model::outside::Number;
use kiln_model::rollout::ReplicaOwner;
use kiln_model::route::{Listener, Sampling};
use kiln_model::{EnvKey, InstanceId, Millis, RevisionNumber};

use super::notation::{Names, status};
use super::shapes::{digest_of, env, instance_spec, service_name, up};
use super::world::{World, replay};

struct Scenario {
    world: World,
    names: Names,
    told: usize,
}

impl Scenario {
    fn new() -> Self {
        let mut scenario = Self { world: World::new(), names: Names::default(), told: 0 };
        scenario.tell();
        scenario
    }

    /// Carries out one command and returns what followed.
    fn step(&mut self, line: &str) -> String {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let key = match words.iter().position(|word| word.starts_with('@')) {
            Some(at) => env(&words.remove(at)[1..]),
            None => env("dev"),
        };
        let mut text = String::new();
        let mut command = |world: &mut World, command: Command| match world.command(command).reply {
            Ok(reply) => writeln!(text, "  {reply:?}").unwrap(),
            Err(refusal) => writeln!(text, "  refused: {refusal:?}").unwrap(),
        };
        let world = &mut self.world;
        match words[0] {
            "up" => command(world, up(&key, &words[1..])),
            "rollback" => {
                let to =
                    words.iter().find_map(|word| word.strip_prefix('#')?.parse().ok().map(RevisionNumber));
                let careful = words.contains(&"careful");
                let mut names =
                    words[1..].iter().filter(|word| !word.starts_with('#') && **word != "careful");
                let service = names.next().map(|name| service_name(name));
                command(world, Command::Rollback { env: key, to, service, careful });
            }
            "scale" => {
                let (service, replicas) = (service_name(words[1]), words[2].parse().unwrap());
                command(world, Command::Scale { env: key, service, replicas, owner: ReplicaOwner::Hand });
            }
            "promote" => command(world, Command::Promote { env: key, step: None }),
            "abort" => command(world, Command::Abort { env: key }),
            "pause" => command(world, Command::Pause { env: key }),
            "resume" => command(world, Command::Resume { env: key }),
            "down" => command(world, Command::Down { env: key }),
            "check" => {
                let mut spec = instance_spec(words[1]);
                spec.health = spec.health.filter(|_| words.get(2) != Some(&"nohealth"));
                let spec_digest = digest_of(&format!("{spec:?}"));
                let (image, test, within) = (digest_of(words[1]), "starts".to_owned(), Millis::from_secs(5));
                command(
                    world,
                    Command::Check { env: key, image, test, spec: spec.into(), spec_digest, within },
                );
            }
            // `measure web 0.3`, or `measure web error`; a number at the end is how many answers are known, if not all.
            "measure" => measure(world, key, &words[1..]),
            // `answer yes`, or `answer no`; a number at the end is how many attempts failed before it was asked, if not all.
            "answer" => answer(world, key, &words[1..]),
            "wait" => self.world.wait(span(words[1])),
            "restart" => self.world.restart(),
            "list" => self.world.list(),
            "stray" => self.world.stray(),
            "power" => self.world.power_loss(),
            "jump" => self.world.jump(span(words[1])),
            "kill" => self.world.exit(self.named(words[1]), ExitStatus::Signal(9)),
            "sick" => self.world.set_health(self.named(words[1]), false),
            "well" => self.world.set_health(self.named(words[1]), true),
            "busy" => drop(self.world.busy.insert(self.named(words[1]))),
            "take" => drop(self.world.taken.insert(listener(words[1]))),
            "free" => drop(self.world.taken.remove(&listener(words[1]))),
            "away" | "back" => {
                let is_away = words[0] == "away";
                match words[1] {
                    "edge" => self.world.edge_is_away = is_away,
                    "provider" => self.world.provider_is_away = is_away,
                    other => panic!("unknown: {other}"),
                }
            }
            "status" => return status(&self.world.state, &self.names),
            other => panic!("unknown command `{other}`"),
        }
        self.world.run();
        assert_eq!(replay(&self.world.log), self.world.state, "the fold of the log is the live state");
        text + &self.tell()
    }

    fn named(&self, name: &str) -> InstanceId {
        let mut all = self.world.state.instances().map(|instance| instance.id);
        all.find(|id| self.names.of(*id) == name).unwrap_or_else(|| panic!("no instance `{name}`"))
    }

    /// The entries since the last time, those of the same moment on lines below each other.
    fn tell(&mut self) -> String {
        let mut text = String::new();
        for entry in &self.world.log[self.told..] {
            let line = self.names.line(entry);
            if line != "acknowledged" {
                writeln!(text, "  {line}").unwrap();
            }
        }
        self.told = self.world.log.len();
        text
    }
}

fn measure(world: &mut World, key: EnvKey, words: &[&str]) {
    let service = service_name(words[0]);
    let rollout = world.state.environment(&key).and_then(|env| env.rollout.clone()).expect("a rollout runs");
    let asked =
        rollout.measured.get(&service).and_then(|tallies| tallies.get("queue")).map_or(0, Tally::asked);
    let known = words.get(2).map_or(asked, |known| known.parse().unwrap());
    let value = words[1].parse().map(Number).map_err(|_| words[1].to_owned());
    let window = rollout.splits[&service].window;
    let (sampling, metric) = (Sampling { rollout: rollout.id, window }, "queue".to_owned());
    world.see(Observation::Measured { env: key, service, sampling, metric, known, value });
}

fn answer(world: &mut World, key: EnvKey, words: &[&str]) {
    let env = world.state.environment(&key).expect("it is there");
    let asked = kiln_core::question(&world.state, env).expect("something is asked");
    let known = words.get(1).map_or(asked.known, |known| known.parse().unwrap());
    let whom: Vec<String> =
        asked.instances.iter().map(|(place, address)| format!("{place} at {address}")).collect();
    let text = if whom.is_empty() { "it answered".to_owned() } else { whom.join(", ") };
    let answer = if words[0] == "yes" { Ok(text) } else { Err(text) };
    let (rollout, index) = (asked.rollout, asked.index);
    world.see(Observation::Asked { env: key, rollout, index, known, answer });
}

fn span(word: &str) -> Millis {
    match word.strip_suffix("ms") {
        Some(ms) => Millis(ms.parse().unwrap()),
        None => Millis::from_secs(word.strip_suffix('s').unwrap().parse().unwrap()),
    }
}

fn listener(port: &str) -> Listener {
    Listener::Public(format!("127.0.0.1:{port}").parse().unwrap())
}

fn run(text: &str) -> String {
    let mut scenario = Scenario::new();
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(out, "{line}").unwrap();
        } else if let Some(command) = line.strip_prefix("> ") {
            writeln!(out, "{line}").unwrap();
            out.push_str(&scenario.step(command));
        }
    }
    out
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the scenarios are files; the core itself knows neither files nor variables"
)]
fn what_follows_is_what_the_scenarios_say() {
    let bless = std::env::var_os("KILN_BLESS").is_some();
    for file in files() {
        let expected = std::fs::read_to_string(&file).unwrap();
        let actual = run(&expected);
        if bless {
            std::fs::write(&file, actual).unwrap();
            continue;
        }
        let differs = expected.lines().zip(actual.lines()).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let actual: Vec<&str> = actual.lines().skip(at.saturating_sub(5)).take(20).collect();
            panic!("{}:{}: what follows is\n{}", file.display(), at + 1, actual.join("\n"));
        }
        assert_eq!(expected.lines().count(), actual.lines().count(), "{}", file.display());
    }
}
