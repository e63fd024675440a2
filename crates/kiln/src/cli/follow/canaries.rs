//! What is told of the canaries that run. Pure.

use std::collections::BTreeMap;

use kiln_model::Millis;

use crate::api::wire::{Canary, Outlook, Outside, Side};
use crate::cli::table::{count, span};

/// How often a pipe is told how long an analysis still needs: often enough to see that it goes on.
const TOLD_EVERY_MS: u64 = 60_000;

/// Some lines for each: what was counted, how much more it takes, and what others measured.
pub(crate) fn lines(canaries: &[Canary], now_ms: u64) -> Vec<String> {
    let lines = |canary: &Canary| {
        let outlook =
            canary.outlook.as_ref().map(|it| format!("{}: {}", canary.service, outlook(it, now_ms)));
        let outside = canary.outside.iter().map(|it| measured(&canary.service, it));
        [Some(counted(canary)), outlook].into_iter().flatten().chain(outside).collect::<Vec<_>>()
    };
    canaries.iter().flat_map(lines).collect()
}

/// When a pipe was told of which canary.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By service and window, when.
    canaries: BTreeMap<(String, u32), u64>,
    /// By service, window and metric, how often it had been asked for.
    measured: BTreeMap<(String, u32, String), u32>,
}

impl Told {
    /// What a pipe is to be told: nothing before the traffic is known, then now and again.
    pub(crate) fn update(&mut self, canaries: &[Canary], now_ms: u64) -> Vec<String> {
        let mut found = Vec::new();
        for canary in canaries {
            for it in &canary.outside {
                let key = (canary.service.clone(), canary.window, it.metric.clone());
                let asked = it.measured + it.errors;
                if asked > 0 && self.measured.insert(key, asked) != Some(asked) {
                    found.push(measured(&canary.service, it));
                }
            }
            let Some(it) = canary.outlook.as_ref().filter(|it| it.until_ms.is_some()) else { continue };
            let key = (canary.service.clone(), canary.window);
            let is_due =
                self.canaries.get(&key).is_none_or(|last| now_ms.saturating_sub(*last) >= TOLD_EVERY_MS);
            if it.per_minute.is_some() && is_due {
                self.canaries.insert(key, now_ms);
                found.push(format!("{}: {}", canary.service, outlook(it, now_ms)));
            }
        }
        found
    }
}

fn counted(canary: &Canary) -> String {
    let side = |it: Side| {
        let made = match it.synthetic {
            0 => String::new(),
            made => format!(", {made} of them Kiln's own"),
        };
        format!("{}{made}, {} failed", count(it.requests as usize, "request"), it.failed)
    };
    let baseline = match canary.outlook {
        Some(_) => format!("; baseline {}", side(canary.baseline)),
        None => String::new(),
    };
    let copies = canary.copies.map(|it| {
        let sent = it.answered + it.lost;
        format!("; {sent} copied, {} answered differently, {} lost", it.differed, it.lost)
    });
    format!("{}: canary {}{baseline}{}", canary.service, side(canary.canary), copies.unwrap_or_default())
}

/// How much more an analysis takes, as in `p99: about 40s more at 120 requests/s`.
fn outlook(it: &Outlook, now_ms: u64) -> String {
    if it.undecided.is_empty() {
        return "enough was seen to tell".into();
    }
    let metrics = it.undecided.join(", ");
    let rate = it.per_minute.map(rate).unwrap_or_default();
    let when = match (it.per_minute, it.needed_ms) {
        (None, _) => "the traffic is not known yet".into(),
        (Some(0), _) => "no requests come: never at this traffic".into(),
        (_, Some(ms)) => format!("about {} more at {rate}", span(Millis(ms))),
        (_, None) => format!("no end can be told yet at {rate}"),
    };
    let left = it.until_ms.map(|until| until.saturating_sub(now_ms));
    let is_too_late = left.is_some_and(|left| it.needed_ms.is_none_or(|needed| needed > left));
    let then = match (left.filter(|_| is_too_late), it.then.as_str()) {
        (None, _) => String::new(),
        (Some(left), then) => {
            let then = match then {
                "continue" => "goes on".to_owned(),
                "ask" => "asks for `kiln rollout promote`".to_owned(),
                "extend" => format!("takes its time again ({} of {})", it.extended + 1, it.extend_limit),
                _ => "goes back".to_owned(),
            };
            format!("; inconclusive in {}, and {then} then", span(Millis(left)))
        }
    };
    format!("{metrics}: {when}{then}")
}

fn measured(service: &str, it: &Outside) -> String {
    let dry = if it.dry_run { " (only written down)" } else { "" };
    format!("{service}: {}{dry}", it.text)
}

fn rate(per_minute: u64) -> String {
    match per_minute {
        0..120 => format!("{} a minute", count(per_minute as usize, "request")),
        _ => format!("{} requests/s", per_minute / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::Copies;

    fn sample() -> Canary {
        Canary {
            service: "web".into(),
            window: 0,
            canary: Side { requests: 1200, failed: 3, synthetic: 0 },
            baseline: Side { requests: 1180, failed: 1, synthetic: 0 },
            copies: None,
            outside: Vec::new(),
            outlook: Some(Outlook {
                undecided: vec!["error rate".into(), "p99".into()],
                more_requests: Some(4800),
                per_minute: Some(7200),
                needed_ms: Some(40_000),
                until_ms: Some(560_000),
                then: "stop".into(),
                ..Outlook::default()
            }),
        }
    }

    fn told(change: impl FnOnce(&mut Outlook)) -> String {
        let mut canary = sample();
        change(canary.outlook.as_mut().unwrap());
        lines(&[canary], 10_000).pop().unwrap()
    }

    #[test]
    fn an_analysis_says_how_long_it_still_needs() {
        let expected = [
            "web: canary 1200 requests, 3 failed; baseline 1180 requests, 1 failed",
            "web: error rate, p99: about 40s more at 120 requests/s",
        ];
        assert_eq!(lines(&[sample()], 10_000), expected);
        assert_eq!(told(|it| it.undecided.clear()), "web: enough was seen to tell");
    }

    #[test]
    fn one_that_will_not_get_there_says_what_happens_then() {
        assert_eq!(
            told(|it| (it.per_minute, it.needed_ms) = (Some(0), None)),
            "web: error rate, p99: no requests come: never at this traffic; inconclusive in 9m 10s, and goes back then"
        );
        assert_eq!(
            told(|it| (it.per_minute, it.needed_ms, it.then) = (Some(30), Some(9_600_000), "ask".into())),
            "web: error rate, p99: about 2h 40m more at 30 requests a minute; \
             inconclusive in 9m 10s, and asks for `kiln rollout promote` then"
        );
        assert_eq!(
            told(|it| {
                (it.per_minute, it.needed_ms, it.then) = (Some(0), None, "extend".into());
                (it.extended, it.extend_limit) = (1, 3);
            }),
            "web: error rate, p99: no requests come: never at this traffic; \
             inconclusive in 9m 10s, and takes its time again (2 of 3) then"
        );
        assert_eq!(
            told(|it| (it.more_requests, it.needed_ms, it.until_ms) = (None, None, None)),
            "web: error rate, p99: no end can be told yet at 120 requests/s"
        );
        assert_eq!(
            told(|it| (it.per_minute, it.until_ms) = (None, None)),
            "web: error rate, p99: the traffic is not known yet"
        );
    }

    #[test]
    fn copies_are_told_and_a_canary_that_nobody_compares_has_no_baseline() {
        let copies = Copies { answered: 490, differed: 3, lost: 10, skipped: 0 };
        let canary = Canary { copies: Some(copies), outlook: None, ..sample() };
        let expected = "web: canary 1200 requests, 3 failed; 500 copied, 3 answered differently, 10 lost";
        assert_eq!(lines(&[canary], 0), [expected]);
    }

    #[test]
    fn what_others_measure_is_told_once_for_each_measurement() {
        let canary = |measured, text: &str| {
            let outside =
                Outside { metric: "queue".into(), measured, text: text.into(), ..Outside::default() };
            Canary { outside: vec![outside], outlook: None, ..sample() }
        };
        let mut told = Told::default();
        assert!(told.update(&[canary(0, "queue was not measured yet")], 0).is_empty());
        assert_eq!(told.update(&[canary(1, "queue is 3")], 0), ["web: queue is 3"]);
        assert!(told.update(&[canary(1, "queue is 3")], 0).is_empty());
        assert_eq!(lines(&[canary(1, "queue is 3")], 0)[1], "web: queue is 3");
    }

    #[test]
    fn a_pipe_is_told_once_the_traffic_is_known_and_then_each_minute() {
        let mut told = Told::default();
        let mut canary = sample();
        canary.outlook.as_mut().unwrap().per_minute = None;
        assert!(told.update(&[canary], 1_000).is_empty());
        assert_eq!(told.update(&[sample()], 2_000).len(), 1);
        assert!(told.update(&[sample()], 50_000).is_empty());
        assert_eq!(told.update(&[sample()], 62_000).len(), 1);
        let next = Canary { window: 1, ..sample() };
        assert_eq!(told.update(&[next], 63_000).len(), 1, "another share");
    }
}
