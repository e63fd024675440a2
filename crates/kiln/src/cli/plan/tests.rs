//! Plans as text: what changed, and what is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::release::RevisionSpec;
use kiln_model::service::{Service, Strategy};
use kiln_model::{Digest, ImageName, InstanceSpec, ServiceName};

use super::diff::{Bake, Forecast, Plan, Verb};
use super::render;
use crate::api::sealed::sample;
use crate::cli::screen::Paint;

fn image() -> ImageName {
    ImageName::new("web").unwrap()
}

fn images() -> BTreeMap<ImageName, Digest> {
    BTreeMap::from([(image(), Digest::new([1; 32]))])
}

fn forecast(service: Service) -> Forecast {
    Forecast { service, image: image(), bake: Bake::Done, recapture: BTreeSet::new() }
}

fn web() -> Service {
    sample().services.into_values().next().unwrap()
}

fn with_spec(change: impl FnOnce(&mut InstanceSpec)) -> Service {
    let mut service = web();
    change(Arc::make_mut(&mut service.spec));
    service
}

/// Plans from the sample to the same with another `web`.
fn plan(web: Forecast) -> Plan {
    let old = sample();
    let new = BTreeMap::from([(web.service.name.clone(), web)]);
    Plan::new(&old, &images(), &new, &old.routes, &old.webhooks)
}

fn verb(web: Forecast) -> Verb {
    plan(web).services[0].verb
}

#[test]
fn nothing_changed_is_no_plan() {
    let plan = plan(forecast(web()));
    assert!(!plan.has_changes());
    assert_eq!(render::summary(&plan), "No changes: 2 services and routes as declared.");
}

#[test]
fn only_what_an_instance_sees_replaces_it() {
    let mut scaled = web();
    scaled.replicas = 3;
    assert_eq!(verb(forecast(scaled)), Verb::Scale);
    let mut adjusted = web();
    adjusted.strategy = Strategy::BlueGreen;
    assert_eq!(verb(forecast(adjusted)), Verb::Adjust);
    let mut stopped = with_spec(|spec| spec.user = "root".into());
    assert_eq!(verb(forecast(stopped.clone())), Verb::Replace { new_first: true });
    stopped.strategy = Strategy::StopThenStart;
    assert_eq!(verb(forecast(stopped)), Verb::Replace { new_first: false });
}

#[test]
fn every_input_that_changed_is_named() {
    let mut service = with_spec(|spec| {
        spec.env.insert("GREETING".into(), "Good day".into());
        spec.env.insert("NEW".into(), "1".into());
        spec.argv.push("--debug".into());
        spec.limits.memory = None;
        if let Some(health) = &mut spec.health {
            health.interval = kiln_model::Millis(2000);
        }
        spec.scratch.clear();
    });
    service.replicas = 5;
    let mut web = forecast(service);
    web.bake = Bake::Due { why: "files changed: web/server.py".into() };
    web.recapture = BTreeSet::from(["db".to_owned()]);
    let expected = r#"Plan for shop/prod (now at #41)

+/- service.web will be replaced, the new instances before the old ones go (2 to 5 instances)
      ~ image: web 010101010101 -> web (will be rebaked)
          files changed: web/server.py
      ~ argv: ["python3","/app/server.py"] -> ["python3","/app/server.py","--debug"]
      ~ env.GREETING: "Hello" -> "Good day"
      + env.NEW: "1"
      - scratch./cache: 8 MiB
      ~ health.interval: 1s -> 2s
      - resources.memory: 64 MiB
      ~ secret.db
          its value changed
      ~ replicas: 2 -> 5

Plan: 0 to add, 1 to replace, 0 to change, 0 to destroy; 1 unchanged.
"#;
    assert_eq!(render::text(&plan(web), "shop/prod", Some(41), Paint::PLAIN), expected);
}

#[test]
fn what_is_new_and_what_goes_is_shown_with_terraforms_signs() {
    let old = sample();
    let mut other = web();
    other.name = ServiceName::new("api").unwrap();
    let new = BTreeMap::from([(other.name.clone(), forecast(other))]);
    let plan = Plan::new(&old, &images(), &new, &BTreeMap::new(), &BTreeMap::new());
    let expected = "Plan for shop/dev (now at #41)

  + service.api will be created (2 instances)
      + image: web 010101010101

  - service.web will be removed (2 instances)

  - route.public will be removed: 0.0.0.0:8080 shop.localhost / to web.http

  - notify.chat will be removed
      - url: https://chat.example/hook
      - events: completed
      - secret: hook@v2

Plan: 1 to add, 0 to replace, 0 to change, 3 to destroy; 0 unchanged.
";
    assert_eq!(render::text(&plan, "shop/dev", Some(41), Paint::PLAIN), expected);
}

#[test]
fn a_plan_of_ten_thousand_services_shows_what_moves_and_counts_the_rest() {
    let mut old = RevisionSpec::default();
    let mut new = BTreeMap::new();
    for number in 0..10_000 {
        let mut service = web();
        service.name = ServiceName::new(format!("s{number}")).unwrap();
        let mut next = service.clone();
        next.replicas += u32::from(number == 77);
        old.services.insert(service.name.clone(), service);
        new.insert(next.name.clone(), forecast(next));
    }
    let plan = Plan::new(&old, &images(), &new, &BTreeMap::new(), &BTreeMap::new());
    let text = render::text(&plan, "shop/dev", Some(41), Paint::PLAIN);
    assert!(
        text.contains("service.s77 will be scaled")
            && text.ends_with("1 to change, 0 to destroy; 9999 unchanged.\n")
    );
    assert!(text.lines().count() < 10, "{text}");
}
