//! Routes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kiln_model::route::Route;
use kiln_model::service::{PortRef, ServiceKind};
use kiln_model::stack::ServiceDefinition;
use kiln_model::{PortName, RouteName, ServiceName};

use super::instances;
use crate::diagnostic::Problem;
use crate::reader::{Context, Reader};
use crate::source::Span;

type Services = BTreeMap<ServiceName, ServiceDefinition>;

pub(super) fn routes(context: &Context<'_>, services: &Services) -> BTreeMap<RouteName, Route> {
    let mut out = BTreeMap::new();
    let mut taken: HashMap<(SocketAddr, Option<String>, String), (Span, String)> = HashMap::new();
    for instance in instances(context, "route") {
        let span = instance.declared.block.header();
        let name: Option<RouteName> = context.name(&instance.name, instance.declared.name_span);
        let Some(name) = name else { continue };
        let Some(route) = instance.read(context, |r| route(r, name, services)).0 else { continue };
        let key = (route.listen, route.host.clone(), route.path.clone());
        if let Some((first, other)) = taken.get(&key) {
            let message =
                format!("route \"{}\" answers for the same requests as route \"{other}\"", route.name);
            context.report(Problem::new("duplicate", span, message).also(*first, "the other one"));
            continue;
        }
        taken.insert(key, (span, route.name.to_string()));
        out.insert(route.name.clone(), route);
    }
    out
}

fn route(reader: Reader<'_>, name: RouteName, services: &Services) -> Option<Route> {
    let listen = reader.parsed("listen", "\":8080\"", listen);
    let host = reader.parsed("host", "\"shop.example\"", host);
    let path = reader.parsed("path", "\"/api\"", path);
    let to = target(reader, services);
    let failed = reader.has("host") && host.is_none() || reader.has("path") && path.is_none();
    if failed {
        return None;
    }
    Some(Route { name, listen: listen?, host, path: path.unwrap_or_else(|| "/".into()), to: to? })
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let fail = || format!("\"{text}\" is no address like \":8080\" or \"127.0.0.1:8080\"");
    let address = match text.strip_prefix(':') {
        Some(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.parse().map_err(|_| fail())?),
        None => text.parse().map_err(|_| match text.parse::<u16>() {
            Ok(port) => format!("write \":{port}\""),
            Err(_) => fail(),
        })?,
    };
    if address.port() == 0 { Err("port 0 is no port to be reached at".into()) } else { Ok(address) }
}

fn host(text: &str) -> Result<String, String> {
    let fail = || format!("\"{text}\" is no host name like \"shop.example\"");
    if text.contains("://") || text.contains(':') {
        return Err(format!("\"{text}\" holds more than a host name; the port stands in `listen`"));
    }
    if text.starts_with('*') {
        return Err(
            "a host with `*` is not supported by this version; leave `host` out to answer for any".into()
        );
    }
    let label = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !part.is_empty() && part.len() <= 63 && part.bytes().all(inner) && !part.starts_with('-')
    };
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    if trimmed.len() > 253 || !trimmed.split('.').all(label) {
        return Err(fail());
    }
    Ok(trimmed.to_ascii_lowercase())
}

fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("\"{text}\" must begin with `/`"));
    }
    let bad = |b: u8| b <= b' ' || b >= 0x7f || matches!(b, b'?' | b'#' | b'*');
    if text.bytes().any(bad) {
        return Err(format!("\"{text}\" is no path prefix: it holds a blank, `?`, `#`, `*` or another sign"));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
}

fn target(reader: Reader<'_>, services: &Services) -> Option<PortRef> {
    let (reference, span) = reader.reference("to", &["service"], "service.NAME.PORT")?;
    let service: ServiceName = reference.name.parse().ok()?;
    // A service that failed to build was reported where it is.
    let definition = services.get(&service).filter(|d| d.kind == ServiceKind::Service)?;
    let port = match &reference.port {
        Some(port) => port.parse().ok(),
        None => default_port(&definition.ports),
    };
    match port {
        Some(port) => Some(PortRef { service, port }),
        None => {
            let names: Vec<String> = definition.ports.keys().map(ToString::to_string).collect();
            let message = format!("service \"{service}\" has no port `http`, nor one port only");
            let help = match names.first() {
                Some(first) => format!("say which: `service.{service}.{first}`; it has {}", names.join(", ")),
                None => "give it one: `port \"http\" { number = 8080 }`".to_owned(),
            };
            reader.report(Problem::new("no-port", span, message).help(help));
            None
        }
    }
}

/// The port named `http`, or the only one.
pub(super) fn default_port(ports: &BTreeMap<PortName, u16>) -> Option<PortName> {
    let http = ports.keys().find(|p| p.as_str() == "http");
    let only = || ports.keys().next().filter(|_| ports.len() == 1);
    http.or_else(only).cloned()
}
