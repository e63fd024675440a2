//! The waves of a rolling service.

use kiln_model::service::{WaveSize, Waves};
use kiln_model::{Millis, Weight};

use super::rollout::bounded;
use super::service::REPLICAS_MAX;
use crate::diagnostic::Problem;
use crate::reader::Reader;
use crate::units::parse_weight;

/// How long a wave is watched before the next one, unless the stack says it: most bad deploys are noticed within minutes.
const SOAK: Millis = Millis::from_secs(600);

/// More waves can't be told apart.
const WAVES_MAX: usize = 50;

pub(super) fn waves(rollout: Reader<'_>) -> Option<Waves> {
    let soak = bounded(rollout, "soak");
    if !rollout.has("waves") {
        if rollout.has("soak") {
            wrong(
                rollout,
                "soak",
                "`soak` is between `waves`, and there are none",
                "as in `waves = [\"1\", \"25%\"]`",
            );
        }
        return None;
    }
    let (mut sizes, mut is_readable): (Vec<WaveSize>, bool) = (Vec::new(), true);
    for text in rollout.strings("waves")? {
        match size(&text) {
            Ok(size) => sizes.push(size),
            Err(reason) => {
                is_readable = false;
                let help = "as in `waves = [\"1\", \"25%\", \"100%\"]`";
                wrong(rollout, "waves", &format!("`waves`: {reason}"), help);
            }
        }
    }
    let back = sizes.windows(2).find(|pair| !grows(pair[0], pair[1]));
    if let Some(pair) = back {
        let message = format!("a wave of {} does not come after one of {}", text(pair[1]), text(pair[0]));
        wrong(rollout, "waves", &message, "each says how many have moved after it: they only grow");
    }
    sizes.retain(|size| *size != WaveSize::Share(Weight::FULL));
    if sizes.is_empty() && is_readable {
        let help = "the last wave is always that of all the others";
        wrong(rollout, "waves", "there is at least one wave of less than all", help);
    }
    if sizes.len() > WAVES_MAX {
        wrong(rollout, "waves", &format!("there are at most {WAVES_MAX} waves"), "leave some out");
    }
    Some(Waves { sizes, soak: soak.unwrap_or(SOAK) })
}

/// `"1"` or `"25%"`.
fn size(text: &str) -> Result<WaveSize, String> {
    if text.ends_with('%') {
        return match parse_weight(text)? {
            Weight::ZERO => Err("a wave is more than nothing".to_owned()),
            share => Ok(WaveSize::Share(share)),
        };
    }
    match text.parse::<u32>() {
        Ok(0) => Err("a wave is more than nothing".to_owned()),
        Ok(count) if i64::from(count) <= i64::from(REPLICAS_MAX) => Ok(WaveSize::Count(count)),
        Ok(_) => Err(format!("a service has at most {REPLICAS_MAX} instances")),
        Err(_) => {
            let text: String = text.chars().take(40).collect();
            Err(format!("\"{text}\" is neither a number of instances like \"1\" nor a share like \"25%\""))
        }
    }
}

/// What can't be compared before the number of replicas is known may follow each other.
fn grows(before: WaveSize, after: WaveSize) -> bool {
    match (before, after) {
        (WaveSize::Count(before), WaveSize::Count(after)) => before < after,
        (WaveSize::Share(before), WaveSize::Share(after)) => before < after,
        (WaveSize::Count(_), WaveSize::Share(_)) | (WaveSize::Share(_), WaveSize::Count(_)) => true,
    }
}

fn text(size: WaveSize) -> String {
    match size {
        WaveSize::Count(count) => count.to_string(),
        WaveSize::Share(share) => format!("{}%", f64::from(share.per_mille()) / 10.0),
    }
}

fn wrong(rollout: Reader<'_>, name: &str, message: &str, help: &str) {
    rollout.report(Problem::new("wrong-value", rollout.span(name), message.to_owned()).help(help.to_owned()));
}
