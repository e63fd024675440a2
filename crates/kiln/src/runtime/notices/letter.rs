//! What is told of an entry of the log. Pure: entries in, letters out.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::calendar::civil_from_days;
use kiln_model::event::RolloutEvent;
use kiln_model::notify::{Occasion, Webhook};
use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{Outcome, Step, Verdict};
use kiln_model::service::{Inconclusive, Strategy};
use kiln_model::{Entry, EnvKey, Event, RevisionNumber, RolloutId, Timestamp};
use kiln_store::Encoded;
use kiln_store::canonical::digest_of;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::verdicts;
use crate::api::view::{cause_word, step_text};

/// A reason is a sentence or two; what is longer is read in the log.
const TEXT_CHARS_MAX: usize = 2_000;

/// One request that somebody is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Letter {
    /// The same at every attempt, and in no other letter.
    pub(super) id: String,
    /// Sorts the letters as they were written.
    pub(super) place: String,
    /// The environment that it is about.
    pub(super) env: EnvKey,
    /// The rollout that it is about.
    pub(super) rollout: RolloutId,
    /// Whose it is, by the name in the stack.
    pub(super) webhook: String,
    /// Where it goes, and what signs it.
    pub(super) to: Webhook,
    /// When it happened.
    pub(super) at: Timestamp,
    /// What.
    pub(super) occasion: Occasion,
    /// The body.
    pub(super) body: String,
}

/// Whom an environment's rollouts are told to, and what has to be known of the one that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Followed {
    #[serde(with = "webhooks")]
    pub(super) webhooks: BTreeMap<String, Webhook>,
    rollout: Option<Running>,
}

/// What was said of a rollout at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Running {
    id: u64,
    from: Option<u64>,
    to: Option<u64>,
    cause: String,
    /// Who may approve, by the index of the step that waits for it, and for how long.
    approvals: BTreeMap<u32, Approval>,
    /// The services whose analysis asks somebody where it can't tell.
    asking: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    step: String,
    by: Vec<String>,
}

/// Maps of webhooks as the log stores each.
mod webhooks {
    use serde::{Deserializer, Serializer};

    use super::*;

    pub(super) fn serialize<S: Serializer>(
        all: &BTreeMap<String, Webhook>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(all.iter().map(|(name, webhook)| (name, Encoded(webhook.clone()))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Webhook>, D::Error> {
        let all = BTreeMap::<String, Encoded<Webhook>>::deserialize(deserializer)?;
        Ok(all.into_iter().map(|(name, webhook)| (name, webhook.0)).collect())
    }
}

/// Something to be told: of what, and what of it.
type Notice = (Occasion, Value);

impl Followed {
    /// Whether nobody is told anything, and nothing has to be known.
    pub(super) fn is_idle(&self) -> bool {
        self.webhooks.is_empty()
    }

    /// Takes an entry into account and returns what is told of it. `spec` looks up what a revision says.
    pub(super) fn read<'a>(
        &mut self,
        env: &EnvKey,
        entry: &Entry,
        spec: impl Fn(RevisionNumber) -> Option<&'a RevisionSpec>,
    ) -> Vec<Letter> {
        let Event::Rollout(event) = &entry.event else { return Vec::new() };
        if let RolloutEvent::Started { from, to, cause, steps } = event {
            // What takes everything down is told to those who were told of what ran.
            let decides = (*to).or(*from).and_then(&spec);
            if let Some(spec) = decides {
                self.webhooks = spec.webhooks.clone();
            }
            self.rollout = Some(Running {
                id: entry.position.0,
                from: from.map(|number| number.0),
                to: to.map(|number| number.0),
                cause: cause_word(cause).to_owned(),
                approvals: approvals(steps),
                asking: decides.map(asking).unwrap_or_default(),
            });
        }
        let Some(running) = &self.rollout else { return Vec::new() };
        let notices = notices(running, entry, event);
        let letters = self.letters(env, running, entry, notices);
        match event {
            RolloutEvent::Finished { .. } => self.rollout = None,
            RolloutEvent::GoingBack { .. } => {
                if let Some(running) = &mut self.rollout {
                    // On the way back other steps are counted, none of which waits for anybody.
                    running.approvals.clear();
                }
            }
            _ => {}
        }
        letters
    }

    fn letters(&self, env: &EnvKey, running: &Running, entry: &Entry, notices: Vec<Notice>) -> Vec<Letter> {
        let mut letters = Vec::new();
        for (nth, (occasion, more)) in notices.iter().enumerate() {
            let told = self.webhooks.iter().filter(|(_, webhook)| webhook.events.contains(occasion));
            letters.extend(told.map(|(name, webhook)| Letter {
                id: id(env, name, entry, *occasion),
                place: format!("{:016}-{nth}", entry.position.0),
                env: env.clone(),
                rollout: RolloutId(running.id),
                webhook: name.clone(),
                to: webhook.clone(),
                at: entry.at,
                occasion: *occasion,
                body: body(env, running, entry, *occasion, more),
            }));
        }
        letters
    }
}

fn approvals(steps: &[Step]) -> BTreeMap<u32, Approval> {
    let approval = |(index, step): (u32, &Step)| match step {
        Step::Approve { by, .. } => Some((index, Approval { step: step_text(step), by: by.clone() })),
        _ => None,
    };
    (0..).zip(steps).filter_map(approval).collect()
}

fn asking(spec: &RevisionSpec) -> BTreeSet<String> {
    let asks = |strategy: &Strategy| match strategy {
        Strategy::Canary(canary) => {
            canary.analysis.as_ref().is_some_and(|it| it.inconclusive == Inconclusive::Ask && !it.dry_run)
        }
        _ => false,
    };
    let asking = spec.services.values().filter(|service| asks(&service.strategy));
    asking.map(|service| service.name.to_string()).collect()
}

fn notices(running: &Running, entry: &Entry, event: &RolloutEvent) -> Vec<Notice> {
    let because = |reason: &str| json!({ "reason": brief(reason) });
    match event {
        RolloutEvent::Started { .. } => vec![(Occasion::Started, json!({}))],
        RolloutEvent::StepStarted { index, deadline } => {
            let told = |approval: &Approval| {
                let until = deadline.map(moment);
                (Occasion::Waiting, json!({ "for": approval.step, "approvers": approval.by, "until": until }))
            };
            running.approvals.get(index).map(told).into_iter().collect()
        }
        RolloutEvent::Analysed { service, window, verdict, evidence, synthetic } => {
            let found = verdicts::analysis(entry.at, service, *window, *verdict, evidence, *synthetic);
            let told = brief(&verdicts::sentence(&found));
            let more = json!({ "service": found.service, "verdict": found.verdict, "text": told });
            let asks = *verdict == Verdict::Inconclusive && running.asking.contains(service.as_str());
            let waits = || (Occasion::Waiting, json!({ "for": format!("somebody to decide: {told}") }));
            let asked = asks.then(waits);
            [(Occasion::Analysed, more)].into_iter().chain(asked).collect()
        }
        RolloutEvent::Halted { reason, until } => {
            let told = format!("somebody to decide: {}", brief(reason));
            vec![(Occasion::Waiting, json!({ "for": told, "until": moment(*until) }))]
        }
        RolloutEvent::GoingBack { reason, .. } if reason == kiln_core::ABORTED => {
            vec![(Occasion::Aborted, because(reason))]
        }
        RolloutEvent::GoingBack { reason, .. } => vec![(Occasion::GoingBack, because(reason))],
        RolloutEvent::Finished { outcome, reason } => {
            let occasion = match outcome {
                Outcome::Completed => Occasion::Completed,
                Outcome::WentBack => Occasion::WentBack,
                Outcome::Stuck => Occasion::Stuck,
                Outcome::Superseded => Occasion::Superseded,
            };
            vec![(occasion, if reason.is_empty() { json!({}) } else { because(reason) })]
        }
        _ => Vec::new(),
    }
}

/// In the form of the Standard Webhooks specification: a type, a moment, and what is told.
fn body(env: &EnvKey, running: &Running, entry: &Entry, occasion: Occasion, more: &Value) -> String {
    let mut data = json!({
        "stack": env.stack.as_str(),
        "environment": env.env.as_str(),
        "rollout": running.id,
        "from": running.from,
        "to": running.to,
        "cause": running.cause,
        "actor": entry.actor.to_string(),
    });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more.clone());
    }
    let kind = format!("rollout.{}", occasion.word());
    json!({ "type": kind, "timestamp": moment(entry.at), "data": data }).to_string()
}

/// The moment is in it, so that two Kilns whose logs are as long say different things.
fn id(env: &EnvKey, webhook: &str, entry: &Entry, occasion: Occasion) -> String {
    let said = format!("{env} {webhook} {} {} {}", entry.position.0, entry.at.0, occasion.word());
    let hex = digest_of(said.as_bytes()).hex();
    format!("msg_{}", &hex[..32])
}

/// As RFC 3339 writes it.
fn moment(at: Timestamp) -> String {
    let secs = at.0 / 1000;
    let (year, month, day) = civil_from_days(i64::try_from(secs / 86_400).unwrap_or(i64::MAX));
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn brief(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use kiln_model::instance::SecretRef;
    use kiln_model::rollout::Cause;
    use kiln_model::{Actor, EnvName, Millis, Position, SecretName, StackName, Term};

    use super::*;

    fn env() -> EnvKey {
        EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() }
    }

    fn told_of(events: &[Occasion]) -> RevisionSpec {
        let secret = SecretRef { name: SecretName::new("hook").unwrap(), version: "v1".into() };
        let events = events.iter().copied().collect();
        let hook = Webhook { url: "http://127.0.0.1:1/".into(), events, secret };
        RevisionSpec { webhooks: [("chat".to_owned(), hook)].into(), ..RevisionSpec::default() }
    }

    fn entry(position: u64, event: RolloutEvent) -> Entry {
        Entry {
            position: Position(position),
            at: Timestamp(1_772_460_309_000 + position),
            term: Term(1),
            actor: Actor::User("alice".into()),
            env: Some(env()),
            event: Event::Rollout(event),
        }
    }

    fn started(to: Option<u64>) -> RolloutEvent {
        let approve = Step::Approve { by: vec!["olga".into()], within: Millis(9) };
        RolloutEvent::Started {
            from: Some(RevisionNumber(1)),
            to: to.map(RevisionNumber),
            cause: Cause::Up,
            steps: vec![Step::OpenListeners, approve],
        }
    }

    fn step(index: u32) -> RolloutEvent {
        RolloutEvent::StepStarted { index, deadline: Some(Timestamp(1_772_460_400_000)) }
    }

    fn back(reason: &str) -> RolloutEvent {
        RolloutEvent::GoingBack { reason: reason.into(), steps: vec![Step::OpenListeners; 2] }
    }

    fn ended(outcome: Outcome) -> RolloutEvent {
        RolloutEvent::Finished { outcome, reason: String::new() }
    }

    fn types(letters: &[Letter]) -> Vec<String> {
        let of = |letter: &Letter| serde_json::from_str::<Value>(&letter.body).unwrap()["type"].clone();
        letters.iter().map(|letter| of(letter).as_str().unwrap().to_owned()).collect()
    }

    /// What is told of these, one after the other.
    fn read(spec: &RevisionSpec, events: Vec<RolloutEvent>) -> Vec<Letter> {
        let mut followed = Followed::default();
        let entries = (10..).zip(events).map(|(position, event)| entry(position, event));
        let letters = entries.flat_map(|entry| followed.read(&env(), &entry, |_| Some(spec)));
        letters.collect()
    }

    #[test]
    fn each_occasion_is_told_with_what_belongs_to_it() {
        let spec = told_of(&Occasion::ALL);
        let told = read(
            &spec,
            vec![
                started(Some(2)),
                step(0),
                step(1),
                back("web/0: exit code 1"),
                step(1),
                ended(Outcome::WentBack),
                started(Some(3)),
                back(kiln_core::ABORTED),
                ended(Outcome::Stuck),
                ended(Outcome::Completed),
            ],
        );
        let expected = ["started", "waiting", "going_back", "went_back", "started", "aborted", "stuck"];
        assert_eq!(types(&told), expected.map(|word| format!("rollout.{word}")));
        let waiting: Value = serde_json::from_str(&told[1].body).unwrap();
        let data = json!({
            "stack": "shop", "environment": "prod", "rollout": 10, "from": 1, "to": 2, "cause": "up", "actor": "alice",
            "for": step_text(&Step::Approve { by: vec!["olga".into()], within: Millis(9) }),
            "approvers": ["olga"], "until": "2026-03-02T14:06:40Z",
        });
        assert_eq!(
            waiting,
            json!({ "type": "rollout.waiting", "timestamp": "2026-03-02T14:05:09Z", "data": data })
        );
        let ids: BTreeSet<&String> = told.iter().map(|letter| &letter.id).collect();
        assert_eq!(ids.len(), told.len(), "no two have the same id");
        let places: Vec<&String> = told.iter().map(|letter| &letter.place).collect();
        assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn nobody_is_told_of_more_than_they_asked_for() {
        let spec = told_of(&[Occasion::Completed]);
        let told = read(&spec, vec![started(Some(2)), step(1), ended(Outcome::Completed)]);
        assert_eq!(types(&told), ["rollout.completed"]);
        assert_eq!(read(&RevisionSpec::default(), vec![started(Some(2)), ended(Outcome::Completed)]), []);
    }

    #[test]
    fn what_takes_everything_down_is_told_to_those_of_what_ran_also_where_it_is_gone() {
        let (spec, mut followed) = (told_of(&Occasion::ALL), Followed::default());
        let mut told = followed.read(&env(), &entry(10, started(Some(1))), |_| Some(&spec));
        told.extend(followed.read(&env(), &entry(11, ended(Outcome::Completed)), |_| None));
        told.extend(followed.read(&env(), &entry(12, started(None)), |_| None));
        told.extend(followed.read(&env(), &entry(13, ended(Outcome::Completed)), |_| None));
        assert_eq!(told.len(), 4);
        assert_eq!((told[3].to.clone(), told[3].rollout), (spec.webhooks["chat"].clone(), RolloutId(12)));
    }

    #[test]
    fn an_id_is_the_same_whenever_it_is_told_and_an_analysis_that_asks_is_waited_for() {
        let service = kiln_model::ServiceName::new("web").unwrap();
        let (window, evidence) = (0, Vec::new());
        let analysed = RolloutEvent::Analysed {
            service,
            window,
            verdict: Verdict::Inconclusive,
            evidence,
            synthetic: 0,
        };
        let mut followed = Followed::default();
        let spec = told_of(&Occasion::ALL);
        let first = followed.read(&env(), &entry(10, started(Some(1))), |_| Some(&spec));
        let mut again = Followed::default();
        assert_eq!(first, again.read(&env(), &entry(10, started(Some(1))), |_| Some(&spec)));
        assert_eq!(types(&again.read(&env(), &entry(11, analysed.clone()), |_| None)), ["rollout.analysed"]);
        followed.rollout.as_mut().unwrap().asking = ["web".to_owned()].into();
        let asked = followed.read(&env(), &entry(11, analysed), |_| None);
        assert_eq!(types(&asked), ["rollout.analysed", "rollout.waiting"]);
        let halted = RolloutEvent::Halted { reason: "ill".into(), until: Timestamp(1_772_460_400_000) };
        let stopped = followed.read(&env(), &entry(12, halted), |_| None);
        assert_eq!(types(&stopped), ["rollout.waiting"]);
        assert!(stopped[0].body.contains("somebody to decide: ill"), "{}", stopped[0].body);
    }
}
