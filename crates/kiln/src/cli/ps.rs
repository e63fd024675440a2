//! `kiln ps`

use kiln_model::Timestamp;
use kiln_model::rollout::Place;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::Outcome;
use super::screen::Paint;
use super::table::{Table, span};
use crate::api::wire;

/// List instances
///
/// Every instance of the environment: the slot that it fills, its revision, age, health, share of the requests, and until
/// when it is kept warm.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln ps --env prod web")]
pub(super) struct Args {
    /// Only this service
    service: Option<String>,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let client = context.client("ps")?;
    let target = context.target(&client)?;
    let environment = client.environment(&target)?;
    let chosen: Vec<&wire::Instance> = environment
        .instances
        .iter()
        .filter(|instance| args.service.as_ref().is_none_or(|service| *service == instance.service))
        .collect();
    if context.screen.json() {
        context.screen.answer(&json!({ "environment": target.to_string(), "instances": chosen, "ends_ms": environment.ends_ms }));
        return Ok(Exit::Done);
    }
    let text = text(&chosen, environment.now_ms, context.screen.paint());
    context.screen.print(&text);
    if let Some(ends) = environment.ends_ms {
        let left = span(Timestamp(ends).since(Timestamp(environment.now_ms)));
        context.screen.line(&format!("{target} ends by itself in {left}"));
    }
    Ok(Exit::Done)
}

fn text(instances: &[&wire::Instance], now_ms: u64, paint: Paint) -> String {
    let now = Timestamp(now_ms);
    let mut table = Table::new(&["SLOT", "INSTANCE", "REV", "AGE", "STATE", "SHARE", "ADDRESS", ""]);
    for instance in instances {
        let state = match instance.state.as_str() {
            "healthy" => paint.green("healthy"),
            state @ ("unhealthy" | "exited" | "refused") => paint.red(state),
            state => paint.yellow(state),
        };
        let detail = match instance.warm_until_ms {
            Some(until) => format!("warm for {} more", span(Timestamp(until).since(now))),
            None => instance.detail.clone(),
        };
        table.row([
            format!("{}/{}", instance.service, Place(instance.ordinal)),
            instance.id.clone(),
            format!("#{}", instance.revision),
            span(now.since(Timestamp(instance.since_ms))),
            state,
            instance.weight.map_or_else(|| "-".into(), |weight| format!("{}%", f64::from(weight) / 10.0)),
            instance.address.clone().unwrap_or_else(|| "-".into()),
            detail,
        ]);
    }
    table.render(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_instance_shows_how_long_it_stays() {
        let instance = wire::Instance {
            id: "abcdefghij".into(),
            service: "web".into(),
            ordinal: 1,
            revision: 41,
            state: "warm".into(),
            since_ms: 0,
            warm_until_ms: Some(125_000),
            ..Default::default()
        };
        let expected = "\
SLOT   INSTANCE    REV  AGE  STATE  SHARE  ADDRESS
web/1  abcdefghij  #41  1m   warm   -      -        warm for 1m 5s more
";
        assert_eq!(text(&[&instance], 60_000, Paint::PLAIN), expected);
    }

    #[test]
    fn a_baseline_is_called_one() {
        let ordinal = kiln_model::rollout::BASELINE_FIRST + 2;
        let instance = wire::Instance { service: "web".into(), ordinal, ..Default::default() };
        assert!(text(&[&instance], 0, Paint::PLAIN).contains("web/baseline/2 "));
    }
}
