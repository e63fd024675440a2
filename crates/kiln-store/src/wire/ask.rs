//! Questions over HTTP, and how often a check is tried.

use std::sync::Arc;

use kiln_model::ask::{Again, Ask, Method, Whom};
use kiln_model::{Millis, PortName, ServiceName};
use serde::{Deserialize, Serialize};

use super::Text;
use super::access::AccessWire;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskWire {
    service: Text<ServiceName>,
    whom: WhomWire,
    #[serde(default, skip_serializing_if = "MethodWire::is_get")]
    method: MethodWire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contains: Option<String>,
    timeout_ms: u64,
    #[serde(default, skip_serializing_if = "AgainWire::is_once")]
    again: AgainWire,
    #[serde(default, skip_serializing_if = "AccessWire::is_none")]
    access: AccessWire,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WhomWire {
    Url(String),
    Instances { port: Text<PortName>, path: String },
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MethodWire {
    #[default]
    Get,
    Head,
    Post,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgainWire {
    attempts: u32,
    interval_ms: u64,
}

impl MethodWire {
    pub(super) fn is_get(&self) -> bool {
        *self == Self::Get
    }
}

impl From<Method> for MethodWire {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::Get,
            Method::Head => Self::Head,
            Method::Post => Self::Post,
        }
    }
}

impl From<MethodWire> for Method {
    fn from(wire: MethodWire) -> Self {
        match wire {
            MethodWire::Get => Self::Get,
            MethodWire::Head => Self::Head,
            MethodWire::Post => Self::Post,
        }
    }
}

impl AgainWire {
    pub(super) fn is_once(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for AgainWire {
    fn default() -> Self {
        Again::default().into()
    }
}

impl From<Again> for AgainWire {
    fn from(Again { attempts, interval }: Again) -> Self {
        Self { attempts, interval_ms: interval.0 }
    }
}

impl From<AgainWire> for Again {
    fn from(AgainWire { attempts, interval_ms }: AgainWire) -> Self {
        Self { attempts, interval: Millis(interval_ms) }
    }
}

impl From<&Arc<Ask>> for AskWire {
    fn from(ask: &Arc<Ask>) -> Self {
        let Ask { service, whom, method, status, contains, timeout, again, access } = &**ask;
        Self {
            service: Text(service.clone()),
            whom: match whom {
                Whom::Url(url) => WhomWire::Url(url.clone()),
                Whom::Instances { port, path } => {
                    WhomWire::Instances { port: Text(port.clone()), path: path.clone() }
                }
            },
            method: (*method).into(),
            status: *status,
            contains: contains.clone(),
            timeout_ms: timeout.0,
            again: (*again).into(),
            access: access.into(),
        }
    }
}

impl From<AskWire> for Arc<Ask> {
    fn from(wire: AskWire) -> Self {
        Self::new(Ask {
            service: wire.service.0,
            whom: match wire.whom {
                WhomWire::Url(url) => Whom::Url(url),
                WhomWire::Instances { port, path } => Whom::Instances { port: port.0, path },
            },
            method: wire.method.into(),
            status: wire.status,
            contains: wire.contains,
            timeout: Millis(wire.timeout_ms),
            again: wire.again.into(),
            access: wire.access.into(),
        })
    }
}
