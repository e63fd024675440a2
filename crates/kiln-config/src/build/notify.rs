//! Who is told of rollouts.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::notify::{Occasion, WebhookDefinition};

use super::instances;
use super::outside::{is_name, url};
use crate::diagnostic::Problem;
use crate::reader::{Context, Reader};
use crate::suggest::did_you_mean;

/// Each is sent every notice, and all of them are kept until they are.
const WEBHOOKS_MAX: usize = 16;

pub(super) fn webhooks(context: &Context<'_>) -> BTreeMap<String, WebhookDefinition> {
    let mut out = BTreeMap::new();
    for instance in instances(context, "notify") {
        let span = instance.declared.name_span;
        let fail = |message: String| context.report(Problem::new("wrong-value", span, message));
        if !is_name(&instance.name) {
            let name = &instance.name;
            fail(format!("\"{name}\" is no name of a webhook: 1 to 64 letters, digits, `_` and `-`"));
        }
        if out.len() >= WEBHOOKS_MAX {
            fail(format!("a stack has at most {WEBHOOKS_MAX} `notify` blocks"));
            break;
        }
        if let Some(webhook) = instance.read(context, webhook).0 {
            out.insert(instance.name.to_string(), webhook);
        }
    }
    out
}

fn webhook(reader: Reader<'_>) -> Option<WebhookDefinition> {
    let url = reader.parsed("url", "\"https://chat.example/hooks/kiln\"", url);
    let events = match reader.has("events") {
        true => events(reader),
        false => Some(Occasion::ALL.into()),
    };
    let secret = reader.reference("secret", &["secret"], "secret.NAME");
    let secret = secret.and_then(|(reference, _)| reference.name.parse().ok());
    Some(WebhookDefinition { url: url?, events: events?, secret: secret? })
}

fn events(reader: Reader<'_>) -> Option<BTreeSet<Occasion>> {
    let mut out = BTreeSet::new();
    let words = reader.strings("events")?;
    if words.is_empty() {
        let help = "leave `events` out to be told of all";
        let problem = Problem::new("wrong-value", reader.span("events"), "a webhook that is told of nothing");
        reader.report(problem.help(help));
        return None;
    }
    for word in words {
        match Occasion::of_word(&word) {
            Some(occasion) => drop(out.insert(occasion)),
            None => {
                let all = Occasion::ALL.map(Occasion::word);
                let help = did_you_mean(&word, all.into_iter())
                    .unwrap_or_else(|| format!("there are \"{}\"", all.join("\", \"")));
                let message = format!("\"{word}\" is nothing that happens to a rollout");
                reader.report(Problem::new("wrong-value", reader.span("events"), message).help(help));
                return None;
            }
        }
    }
    Some(out)
}
