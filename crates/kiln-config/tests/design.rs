//! The example of the design loads to the stack that it means.
#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

use kiln_config::{MemoryFiles, Request, SourceSet, load};
use kiln_model::Timestamp;
use kiln_model::instance::Probe;
use kiln_model::recipe::{BaseRecipe, ImageSource, RecipeStep};
use kiln_model::service::{ServiceKind, Strategy};
use kiln_model::stack::{SecretSource, Stack};
use kiln_model::{ByteSize, MilliCpu, Millis};

fn design(env: &str) -> Stack {
    let sources: SourceSet = [("stack.hcl", include_str!("design.hcl"))].into_iter().collect();
    let files = MemoryFiles::default();
    let request = Request {
        env: env.parse().unwrap(),
        variables: Default::default(),
        files: &files,
        lock_time: Timestamp(0),
    };
    let loaded = load(&sources, &request);
    assert_eq!(loaded.diagnostics, vec![]);
    loaded.stack.unwrap()
}

#[test]
fn the_example_of_the_design_loads() {
    let stack = design("prod");
    let BaseRecipe::Debian(base) = &stack.bases[&"slim".parse().unwrap()];
    assert_eq!((base.suite.as_str(), base.packages.len()), ("bookworm", 2));
    let image = &stack.images[&"web".parse().unwrap()];
    assert_eq!(image.from, ImageSource::Base("slim".parse().unwrap()));
    assert!(
        matches!(&image.steps[..], [RecipeStep::Copy(c), RecipeStep::Run(_)] if c.from == "web" && c.to == "/app")
    );
    assert_eq!(image.config.user, "www-data");
    let test = &image.tests[0];
    assert_eq!(test.probe, Some(Probe::Http { port: 8080, path: "/healthz".into(), status: Some(200) }));
    assert_eq!(test.within, Millis::from_secs(5));
    let web = &stack.services[&"web".parse().unwrap()];
    assert_eq!(
        (web.kind, web.replicas, web.strategy.clone()),
        (ServiceKind::Service, 6, Strategy::BlueGreen)
    );
    assert_eq!(web.env["GREETING"], "Hello");
    assert_eq!(web.env["ORDERS"], "http://orders.shop.kiln");
    assert_eq!(web.secrets["/run/secrets/db"].as_str(), "db_password");
    assert_eq!(web.limits.memory, Some(ByteSize::from_mib(128)));
    assert_eq!(web.limits.cpu, Some(MilliCpu(500)));
    let health = web.health.as_ref().unwrap();
    assert_eq!(health.probe, Probe::Http { port: 8080, path: "/healthz".into(), status: None });
    assert_eq!(health.interval, Millis::from_secs(1));
    assert_eq!(web.uses, ["orders".parse().unwrap()].into());
    assert_eq!(web.after, web.uses);
    assert_eq!(stack.secrets[&"db_password".parse().unwrap()], SecretSource::File("secrets/db".into()));
    let route = &stack.routes[&"public".parse().unwrap()];
    assert_eq!(
        (route.listen.to_string().as_str(), route.host.as_deref()),
        ("0.0.0.0:8080", Some("shop.localhost"))
    );
    assert_eq!((route.to.service.as_str(), route.to.port.as_str()), ("web", "http"));
    let replicas = "replicas".parse().unwrap();
    assert_eq!((stack.holes[&replicas].as_str(), stack.bound[&replicas].as_str()), ("number", "6"));
}

#[test]
fn environments_differ_in_what_they_decide_alone() {
    let (mut dev, prod) = (design("dev"), design("prod"));
    let web = "web".parse().unwrap();
    assert_eq!(dev.services[&web].replicas, 2);
    dev.services.get_mut(&web).unwrap().replicas = 6;
    (dev.env, dev.bound) = (prod.env.clone(), prod.bound.clone());
    assert_eq!(dev, prod);
}

#[test]
fn a_thousand_services_load_in_one_pass_each() {
    let mut text =
        String::from("stack \"big\" {}\nimage \"web\" {\n  from = \"scratch\"\n  command = [\"/web\"]\n}\n");
    for i in 0..1000 {
        let previous = format!("service.s{}.url", (i + 999) % 1000);
        text.push_str(&format!(
            "service \"s{i}\" {{\n  image = image.web\n  env = {{ PEER = {previous} }}\n  port \"http\" {{\n    number = 8080\n  }}\n}}\n"
        ));
    }
    let sources: SourceSet = [("stack.hcl", text)].into_iter().collect();
    let files = MemoryFiles::default();
    let request = Request {
        env: "dev".parse().unwrap(),
        variables: Default::default(),
        files: &files,
        lock_time: Timestamp(0),
    };
    let loaded = load(&sources, &request);
    assert_eq!(loaded.diagnostics, vec![]);
    assert_eq!(loaded.stack.unwrap().services.len(), 1000);
}
