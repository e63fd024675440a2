//! What a rollout is expected to take, as people read it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiln_model::{ByteSize, ImageName, Millis};

use crate::api::wire::{AssumedDelay, Prediction};
use crate::cli::screen::Paint;
use crate::cli::table::{Table, count, span};

/// The prediction as text; `bakes` are the images that are still to be baked, with the size of the last one.
pub(crate) fn text(
    prediction: &Prediction,
    bakes: &BTreeMap<ImageName, Option<u64>>,
    paint: Paint,
) -> String {
    if let Some(why) = &prediction.unknown {
        return format!("Expected: not known: {why}\n");
    }
    let approvals = match prediction.approvals {
        0 => String::new(),
        number => format!(", and {}", count(as_usize(number), "approval")),
    };
    let total = span(Millis(prediction.total_ms));
    let mut text = format!("{}\n", paint.bold(&format!("Expected: {total} once baked{approvals}")));
    let mut steps = Table::bare();
    for step in &prediction.steps {
        steps.row([
            step.text.clone(),
            step.took_ms.map_or_else(|| "not reached".into(), |ms| span(Millis(ms))),
        ]);
    }
    text.push_str(&steps.render(2));
    if let Some(why) = &prediction.goes_back {
        let _ = writeln!(text, "  {}", paint.red(&format!("it would go back: {why}")));
    }
    let mut facts = Table::bare();
    facts.row(["memory".into(), memory(prediction)]);
    facts.row(["disk".into(), disk(bakes)]);
    for risk in &prediction.services {
        let replaced = count(as_usize(risk.replaced), "instance");
        let (fewest, before) = (risk.fewest, risk.before);
        facts.row([
            "at risk".into(),
            format!(
                "{}: {replaced} replaced or removed, never fewer than {fewest} of {before} at work",
                risk.service
            ),
        ]);
    }
    let guessed: Vec<String> = prediction.delays.iter().filter(|it| it.seen == 0).map(guess).collect();
    if !guessed.is_empty() {
        facts.row(["not seen".into(), format!("{}, by default", guessed.join(", "))]);
    }
    text.push_str(&facts.render(2));
    text
}

fn memory(prediction: &Prediction) -> String {
    let limited = match prediction.memory_extra_bytes {
        0 => "no more than now".into(),
        bytes => format!("{} more at the peak, by the limits of the instances", ByteSize(bytes)),
    };
    match prediction.unlimited_extra {
        0 => limited,
        number => {
            format!("{limited}, beside {} without a limit", count(as_usize(number), "more instance"))
        }
    }
}

fn disk(bakes: &BTreeMap<ImageName, Option<u64>>) -> String {
    if bakes.is_empty() {
        return "no image is new".into();
    }
    let known: u64 = bakes.values().flatten().sum();
    let unknown: Vec<&str> =
        bakes.iter().filter(|(_, size)| size.is_none()).map(|(name, _)| name.as_str()).collect();
    let first = format!("{} never baked", unknown.join(", "));
    match (known, unknown.is_empty()) {
        (0, _) => first,
        (_, true) => format!("{} more at most, if the images come out as large as before", ByteSize(known)),
        (_, false) => {
            format!("{} more at most, if the images come out as large as before; {first}", ByteSize(known))
        }
    }
}

fn guess(delay: &AssumedDelay) -> String {
    let after = delay.ms.map(|ms| span(Millis(ms)));
    let after = after.as_deref().unwrap_or("all the time that it has");
    let service = &delay.service;
    match delay.what.as_str() {
        "healthy" => format!("{service} healthy after {after}"),
        "drain" => format!("{service} drained after {after}"),
        "stop" => format!("{service} gone after {after}"),
        "run" => format!("{service} done after {after}"),
        _ => format!("{service} judged after {after}"),
    }
}

fn as_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{PredictedStep, ServiceRisk};

    fn prediction() -> Prediction {
        let step = |text: &str, took_ms| PredictedStep { text: text.into(), took_ms };
        let delay =
            |what: &str, ms, seen| AssumedDelay { service: "web".into(), what: what.into(), ms, seen };
        Prediction {
            total_ms: 3705,
            steps: vec![step("wait", Some(3000)), step("switch", Some(5))],
            approvals: 1,
            memory_extra_bytes: 3 << 20,
            unlimited_extra: 2,
            services: vec![ServiceRisk { service: "web".into(), replaced: 3, before: 3, fewest: 2 }],
            delays: vec![
                delay("healthy", Some(3000), 0),
                delay("drain", Some(9), 4),
                delay("analysis", None, 0),
            ],
            ..Prediction::default()
        }
    }

    #[test]
    fn a_prediction_says_what_it_takes_and_what_it_was_guessed_from() {
        let bakes = BTreeMap::from([(ImageName::new("web").unwrap(), Some(5 << 20))]);
        let expected = "\
Expected: 3.7s once baked, and 1 approval
  wait    3.0s
  switch  5ms
  memory    3 MiB more at the peak, by the limits of the instances, beside 2 more instances without a limit
  disk      5 MiB more at most, if the images come out as large as before
  at risk   web: 3 instances replaced or removed, never fewer than 2 of 3 at work
  not seen  web healthy after 3.0s, web judged after all the time that it has, by default
";
        assert_eq!(text(&prediction(), &bakes, Paint::PLAIN), expected);
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let unknown = Prediction { unknown: Some("too large".into()), ..Prediction::default() };
        assert_eq!(text(&unknown, &BTreeMap::new(), Paint::PLAIN), "Expected: not known: too large\n");
        let back = Prediction { goes_back: Some("too slow".into()), ..prediction() };
        assert!(text(&back, &BTreeMap::new(), Paint::PLAIN).contains("it would go back: too slow"));
        let [web, new] = ["web", "new"].map(|name| ImageName::new(name).unwrap());
        assert_eq!(disk(&BTreeMap::new()), "no image is new");
        assert_eq!(disk(&BTreeMap::from([(new.clone(), None)])), "new never baked");
        let both = disk(&BTreeMap::from([(web, Some(1 << 20)), (new, None)]));
        assert_eq!(both, "1 MiB more at most, if the images come out as large as before; new never baked");
    }
}
