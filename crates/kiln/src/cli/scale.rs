//! `kiln scale`

use kiln_model::ServiceName;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::Outcome;
use crate::api::wire;

/// Change the number of replicas of a service
///
/// Adds or removes instances; none is replaced. It holds until a revision declares another number than the one before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln scale --env prod web=6 orders=2")]
pub(super) struct Args {
    /// A service and its number
    #[arg(required = true, value_name = "SERVICE=N", value_parser = pair)]
    services: Vec<(ServiceName, u32)>,
}

fn pair(text: &str) -> Result<(ServiceName, u32), String> {
    let (service, number) = text.split_once('=').ok_or("expected SERVICE=N, such as web=6")?;
    let service = ServiceName::new(service).map_err(|error| error.to_string())?;
    let number = number.parse().map_err(|_| format!("`{number}` is not a number of replicas"))?;
    Ok((service, number))
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let client = context.client("scale")?;
    let target = context.target(&client)?;
    let mut shown = Vec::new();
    for (service, replicas) in &args.services {
        client.scale(&target, &wire::Scale { service: service.to_string(), replicas: *replicas })?;
        shown.push(format!("{service} {replicas}"));
    }
    if context.screen.json() {
        let services: serde_json::Map<_, _> =
            args.services.iter().map(|(service, replicas)| (service.to_string(), json!(replicas))).collect();
        context.screen.answer(&json!({ "environment": target.to_string(), "replicas": services }));
    } else {
        context.screen.line(&format!("{target}: {}; `kiln ps` shows them come and go", shown.join(", ")));
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_needs_a_service_and_a_number() {
        assert_eq!(pair("web=6").unwrap().1, 6);
        for bad in ["web", "web=", "web=-1", "We b=1", "=1"] {
            assert!(pair(bad).is_err(), "{bad}");
        }
    }
}
