//! The control protocol and the stored table: versioned structs, converted explicitly from and to the model.
//!
//! Compatible one version back and forth: unknown fields are ignored, an unknown kind of message is answered with
//! `unsupported`, and the number of a frame's version only changes when this is not enough.

mod pool;
mod samples;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::route::{Listener, PoolKey, RouteTable, Rule};
use kiln_model::{
    EnvKey, EnvName, Fence, InstanceId, Position, RevisionNumber, ServiceName, StackName, Term,
};
use serde::{Deserialize, Serialize};

use crate::ledger::{Counts, LedgerRow, LedgerSnapshot};

use self::pool::PoolWire;
pub(crate) use self::samples::SamplesWire;

/// The version of frames and of the stored table.
pub(crate) const VERSION: u32 = 1;

/// A frame from a client to the edge.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestFrame {
    pub(crate) v: u32,
    pub(crate) id: u64,
    pub(crate) body: Request,
}

/// What every version of a frame has.
#[derive(Debug, Deserialize)]
pub(crate) struct AnyFrame {
    pub(crate) id: u64,
}

/// A frame from the edge: an answer has its request's id, a pushed message has id 0.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerFrame {
    pub(crate) v: u32,
    pub(crate) id: u64,
    pub(crate) body: Answer,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Request {
    /// One file descriptor comes with it: a listening TCP socket.
    AddListener {
        listener: String,
    },
    RemoveListener {
        listener: String,
    },
    /// The listeners from this place on; as many as fit in a frame.
    Listeners {
        from: usize,
    },
    Publish {
        table: TableWire,
    },
    AwaitIdle {
        instance: String,
    },
    Stats,
    Samples {
        stack: String,
        env: String,
        service: String,
        rollout: u64,
        window: u32,
    },
    Table,
    PutAnchor {
        anchor: AnchorWire,
    },
    Anchor,
}

/// What the edge says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Answer {
    Done,
    /// One file descriptor for each comes with it, in this order.
    Listeners {
        listeners: Vec<String>,
        more: bool,
    },
    Acknowledged {
        fence: FenceWire,
    },
    Refused {
        highest: FenceWire,
    },
    /// Pushed.
    Idle {
        instance: String,
    },
    Stats {
        stats: StatsWire,
    },
    Samples {
        /// None if nothing is counted under that name.
        samples: Option<SamplesWire>,
    },
    Table {
        table: TableWire,
        notes: Vec<String>,
    },
    Anchor {
        anchor: Option<AnchorWire>,
    },
    Failed {
        reason: String,
    },
    Unsupported {
        version: u32,
    },
}

/// Where the log stood, as the controller says it: opaque to the edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnchorWire {
    pub(crate) position: String,
    pub(crate) hash: String,
    /// When the edge stored it, in milliseconds since 1970; not in what it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FenceWire {
    pub(crate) term: u64,
    pub(crate) position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableWire {
    pub(crate) v: u32,
    pub(crate) fence: FenceWire,
    pub(crate) rules: Vec<RuleWire>,
    pub(crate) pools: Vec<PoolWire>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleWire {
    listener: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    path: String,
    pool: PoolKeyWire,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolKeyWire {
    stack: String,
    env: String,
    service: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatsWire {
    starts: u64,
    log_lines_dropped: u64,
    rows: Vec<StatsRowWire>,
    earlier: [u64; 9],
    unrouted: [u64; 9],
    overflow: [u64; 9],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatsRowWire {
    stack: String,
    env: String,
    service: String,
    revision: u64,
    counts: [u64; 9],
}

/// A message whose parts are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WireError(pub(crate) String);

fn wrong(error: impl ToString) -> WireError {
    WireError(error.to_string())
}

impl From<Fence> for FenceWire {
    fn from(fence: Fence) -> Self {
        Self { term: fence.term.0, position: fence.position.0 }
    }
}

impl From<FenceWire> for Fence {
    fn from(fence: FenceWire) -> Self {
        Self { term: Term(fence.term), position: Position(fence.position) }
    }
}

impl From<&PoolKey> for PoolKeyWire {
    fn from(key: &PoolKey) -> Self {
        Self {
            stack: key.env.stack.to_string(),
            env: key.env.env.to_string(),
            service: key.service.to_string(),
            port: key.port,
        }
    }
}

impl PoolKeyWire {
    fn into_model(self) -> Result<PoolKey, WireError> {
        let env = EnvKey {
            stack: StackName::new(self.stack).map_err(wrong)?,
            env: EnvName::new(self.env).map_err(wrong)?,
        };
        Ok(PoolKey { env, service: ServiceName::new(self.service).map_err(wrong)?, port: self.port })
    }
}

impl From<&RouteTable> for TableWire {
    fn from(table: &RouteTable) -> Self {
        let rule = |rule: &Rule| RuleWire {
            listener: rule.listener.to_string(),
            host: rule.host.clone(),
            path: rule.path.clone(),
            pool: (&rule.pool).into(),
        };
        Self {
            v: VERSION,
            fence: table.fence.into(),
            rules: table.rules.iter().map(rule).collect(),
            pools: table.pools.iter().map(|(key, pool)| (key, &**pool).into()).collect(),
        }
    }
}

impl TableWire {
    /// Checks every part.
    pub(crate) fn into_model(self) -> Result<RouteTable, WireError> {
        if self.v != VERSION {
            return Err(WireError(format!("a table of version {} is not understood", self.v)));
        }
        let rules = self.rules.into_iter().map(RuleWire::into_model).collect::<Result<_, _>>()?;
        let mut pools = BTreeMap::new();
        for pool in self.pools {
            let (key, pool) = pool.into_model()?;
            if let Some(twice) = pools.insert(key.clone(), Arc::new(pool)) {
                return Err(WireError(format!(
                    "the pool {key} is there twice, with {} backends",
                    twice.backends.len()
                )));
            }
        }
        Ok(RouteTable { fence: self.fence.into(), rules, pools })
    }
}

impl RuleWire {
    fn into_model(self) -> Result<Rule, WireError> {
        if !self.path.starts_with('/') {
            return Err(WireError(format!("the path `{}` does not begin with a slash", self.path)));
        }
        let listener: Listener = self.listener.parse().map_err(wrong)?;
        Ok(Rule { listener, host: self.host, path: self.path, pool: self.pool.into_model()? })
    }
}

/// Reads an instance's id.
pub(crate) fn instance(text: &str) -> Result<InstanceId, WireError> {
    text.parse().map_err(wrong)
}

/// Reads a listener's key.
pub(crate) fn listener(text: &str) -> Result<Listener, WireError> {
    text.parse().map_err(wrong)
}

impl From<LedgerSnapshot> for StatsWire {
    fn from(ledger: LedgerSnapshot) -> Self {
        let row = |row: LedgerRow| StatsRowWire {
            stack: row.env.stack.to_string(),
            env: row.env.env.to_string(),
            service: row.service.to_string(),
            revision: row.revision.0,
            counts: row.counts.to_words(),
        };
        Self {
            starts: ledger.starts,
            log_lines_dropped: ledger.log_lines_dropped,
            rows: ledger.rows.into_iter().map(row).collect(),
            earlier: ledger.earlier.to_words(),
            unrouted: ledger.unrouted.to_words(),
            overflow: ledger.overflow.to_words(),
        }
    }
}

impl StatsWire {
    pub(crate) fn into_model(self) -> Result<LedgerSnapshot, WireError> {
        let row = |row: StatsRowWire| -> Result<LedgerRow, WireError> {
            let key = PoolKeyWire { stack: row.stack, env: row.env, service: row.service, port: 0 };
            let PoolKey { env, service, .. } = key.into_model()?;
            let revision = RevisionNumber(row.revision);
            Ok(LedgerRow { env, service, revision, counts: Counts::from_words(row.counts) })
        };
        Ok(LedgerSnapshot {
            starts: self.starts,
            log_lines_dropped: self.log_lines_dropped,
            rows: self.rows.into_iter().map(row).collect::<Result<_, _>>()?,
            earlier: Counts::from_words(self.earlier),
            unrouted: Counts::from_words(self.unrouted),
            overflow: Counts::from_words(self.overflow),
        })
    }
}

/// Reads whose samples are asked for.
pub(crate) fn sampled(
    stack: String,
    env: String,
    service: String,
) -> Result<(EnvKey, ServiceName), WireError> {
    let PoolKey { env, service, .. } = PoolKeyWire { stack, env, service, port: 0 }.into_model()?;
    Ok((env, service))
}

#[cfg(test)]
mod tests {
    use kiln_model::ask::Method;
    use kiln_model::route::{Aim, Backend, Group, HeaderMatch, Mirror, Pool, Sampling, Sticky, Synthetic};
    use kiln_model::sample::GroupSamples;
    use kiln_model::{Millis, PortName, RolloutId, Weight};

    use super::*;

    fn table() -> RouteTable {
        let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() };
        let key = PoolKey { env, service: ServiceName::new("web").unwrap(), port: 8080 };
        let backend = Backend {
            instance: InstanceId::from_seed(7),
            revision: RevisionNumber(42),
            address: "10.1.0.2:8080".parse().unwrap(),
            weight: Weight::FULL,
            group: Group::Stable,
        };
        let rule = |listener: &str, host: Option<&str>| Rule {
            listener: listener.parse().unwrap(),
            host: host.map(str::to_owned),
            path: "/".to_owned(),
            pool: key.clone(),
        };
        RouteTable {
            fence: Fence { term: Term(3), position: Position(17) },
            rules: vec![rule("0.0.0.0:8080", Some("shop.localhost")), rule("internal-5", None)],
            pools: BTreeMap::from([(
                key.clone(),
                Arc::new(Pool { backends: vec![backend], ..Pool::default() }),
            )]),
        }
    }

    const GOLDEN_TABLE: &str = concat!(
        r#"{"v":1,"fence":{"term":3,"position":17},"rules":["#,
        r#"{"listener":"0.0.0.0:8080","host":"shop.localhost","path":"/","#,
        r#""pool":{"stack":"shop","env":"prod","service":"web","port":8080}},"#,
        r#"{"listener":"internal-5","path":"/","pool":{"stack":"shop","env":"prod","service":"web","port":8080}}],"#,
        r#""pools":[{"key":{"stack":"shop","env":"prod","service":"web","port":8080},"#,
        r#""backends":[{"instance":"haaaaaaaaa","revision":42,"address":"10.1.0.2:8080","weight":1000}]}]}"#,
    );

    #[test]
    fn the_bytes_of_a_table_are_stable() {
        let wire = TableWire::from(&table());
        assert_eq!(serde_json::to_string(&wire).unwrap(), GOLDEN_TABLE);
        let read: TableWire = serde_json::from_str(GOLDEN_TABLE).unwrap();
        assert_eq!(read.into_model().unwrap(), table());
    }

    #[test]
    fn the_bytes_of_a_canarys_pool_are_stable() {
        let mut table = table();
        let pool = Arc::make_mut(table.pools.values_mut().next().unwrap());
        pool.sampling = Some(Sampling { rollout: RolloutId(90), window: 2 });
        pool.backends[0].group = Group::Canary;
        pool.mirror = Some(Mirror { share: Weight::new(100).unwrap() });
        pool.sticky = Some(Sticky::Cookie { name: "k".to_owned(), max_age: Millis(9000) });
        let (path, host) = ("/a?b=c".to_owned(), "shop".to_owned());
        let port = PortName::new("http").unwrap();
        let made = Synthetic { method: Method::Head, path, host, port, rate: 20, count: 500 };
        pool.synthetic = Some(Arc::new(made));
        let aim = |value| Aim { header: "x-v".to_owned(), value, group: Group::Canary };
        pool.aim = vec![aim(HeaderMatch::Exact("a".to_owned())), aim(HeaderMatch::Present)];
        let golden = GOLDEN_TABLE.replace(
            r#""weight":1000}]"#,
            concat!(
                r#""weight":1000,"group":"canary"}],"sampling":{"rollout":90,"window":2},"#,
                r#""sticky":{"by":"cookie","name":"k","max_age_ms":9000},"#,
                r#""aim":[{"header":"x-v","value":{"exact":"a"},"group":"canary"},"#,
                r#"{"header":"x-v","value":"present","group":"canary"}],"mirror":{"share":100},"#,
                r#""synthetic":{"method":"HEAD","path":"/a?b=c","host":"shop","port":"http","rate":20,"count":500}"#,
            ),
        );
        assert_eq!(serde_json::to_string(&TableWire::from(&table)).unwrap(), golden);
        let read: TableWire = serde_json::from_str(&golden).unwrap();
        assert_eq!(read.into_model().unwrap(), table);
        for (from, to) in [
            ("canary", "shadow"),
            (r#""k""#, r#""k=1""#),
            ("x-v", "x v"),
            (":100}", ":1001}"),
            ("HEAD", "POST"),
        ] {
            let wrong: TableWire = serde_json::from_str(&golden.replace(from, to)).unwrap();
            assert!(wrong.into_model().is_err(), "{to}");
        }
        for sticky in [Sticky::Header { name: "x-user".to_owned() }, Sticky::Address] {
            Arc::make_mut(table.pools.values_mut().next().unwrap()).sticky = Some(sticky);
            assert_eq!(TableWire::from(&table).into_model().unwrap(), table);
        }
    }

    fn anchor(at_ms: Option<u64>) -> AnchorWire {
        AnchorWire { position: "9".to_owned(), hash: "ab".to_owned(), at_ms }
    }

    #[test]
    fn the_bytes_of_requests_are_stable() {
        let golden = |request: Request, text: &str| {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        };
        let listener = || "0.0.0.0:80".to_owned();
        golden(
            Request::AddListener { listener: listener() },
            r#"{"kind":"add_listener","listener":"0.0.0.0:80"}"#,
        );
        golden(
            Request::RemoveListener { listener: listener() },
            r#"{"kind":"remove_listener","listener":"0.0.0.0:80"}"#,
        );
        golden(Request::Listeners { from: 64 }, r#"{"kind":"listeners","from":64}"#);
        golden(
            Request::Publish { table: (&table()).into() },
            &format!(r#"{{"kind":"publish","table":{GOLDEN_TABLE}}}"#),
        );
        golden(
            Request::AwaitIdle { instance: "haaaaaaaaa".to_owned() },
            r#"{"kind":"await_idle","instance":"haaaaaaaaa"}"#,
        );
        golden(Request::Stats, r#"{"kind":"stats"}"#);
        let (stack, env, service) = ("shop".to_owned(), "prod".to_owned(), "web".to_owned());
        golden(
            Request::Samples { stack, env, service, rollout: 90, window: 2 },
            r#"{"kind":"samples","stack":"shop","env":"prod","service":"web","rollout":90,"window":2}"#,
        );
        golden(Request::Table, r#"{"kind":"table"}"#);
        golden(Request::Anchor, r#"{"kind":"anchor"}"#);
        let anchor = anchor(None);
        golden(
            Request::PutAnchor { anchor },
            r#"{"kind":"put_anchor","anchor":{"position":"9","hash":"ab"}}"#,
        );
    }

    #[test]
    fn the_bytes_of_answers_are_stable() {
        let golden = |answer: Answer, text: &str| {
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
            assert_eq!(serde_json::from_str::<Answer>(text).unwrap(), answer);
        };
        let fence = FenceWire { term: 1, position: 2 };
        golden(Answer::Done, r#"{"kind":"done"}"#);
        golden(Answer::Acknowledged { fence }, r#"{"kind":"acknowledged","fence":{"term":1,"position":2}}"#);
        golden(Answer::Refused { highest: fence }, r#"{"kind":"refused","highest":{"term":1,"position":2}}"#);
        golden(
            Answer::Idle { instance: "haaaaaaaaa".to_owned() },
            r#"{"kind":"idle","instance":"haaaaaaaaa"}"#,
        );
        golden(
            Answer::Listeners { listeners: vec!["internal-1".to_owned()], more: true },
            r#"{"kind":"listeners","listeners":["internal-1"],"more":true}"#,
        );
        let group = GroupSamples {
            ok: 7,
            lost: 1,
            latency: BTreeMap::from([(12, 3), (900, 4)]),
            ..GroupSamples::default()
        };
        let samples = SamplesWire::from(BTreeMap::from([(Group::Canary, group.clone())]));
        assert_eq!(samples.clone().into_model().unwrap(), BTreeMap::from([(Group::Canary, group)]));
        golden(
            Answer::Samples { samples: Some(samples.clone()) },
            concat!(
                r#"{"kind":"samples","samples":{"layout":1,"groups":{"canary":{"ok":7,"client_error":0,"#,
                r#""server_error":0,"lost":1,"broken":0,"left":0,"latency":[[12,3],[900,4]]}}}}"#,
            ),
        );
        assert!(
            serde_json::from_str::<SamplesWire>(r#"{"layout":2,"groups":{}}"#).unwrap().into_model().is_err()
        );
        golden(Answer::Samples { samples: None }, r#"{"kind":"samples","samples":null}"#);
        golden(Answer::Anchor { anchor: None }, r#"{"kind":"anchor","anchor":null}"#);
        golden(
            Answer::Anchor { anchor: Some(anchor(Some(7))) },
            r#"{"kind":"anchor","anchor":{"position":"9","hash":"ab","at_ms":7}}"#,
        );
        golden(Answer::Unsupported { version: 1 }, r#"{"kind":"unsupported","version":1}"#);
        golden(Answer::Failed { reason: "x".to_owned() }, r#"{"kind":"failed","reason":"x"}"#);
        let counts = Counts { begun: 3, ended: 2, ..Counts::default() };
        let row = LedgerRow {
            env: table().rules[0].pool.env.clone(),
            service: ServiceName::new("web").unwrap(),
            revision: RevisionNumber(42),
            counts,
        };
        let ledger = LedgerSnapshot { starts: 1, rows: vec![row], ..LedgerSnapshot::default() };
        let stats = StatsWire::from(ledger.clone());
        assert_eq!(stats.clone().into_model().unwrap(), ledger);
        golden(
            Answer::Stats { stats },
            concat!(
                r#"{"kind":"stats","stats":{"starts":1,"log_lines_dropped":0,"#,
                r#""rows":[{"stack":"shop","env":"prod","service":"web","revision":42,"counts":[3,2,0,0,0,0,0,0,0]}],"#,
                r#""earlier":[0,0,0,0,0,0,0,0,0],"unrouted":[0,0,0,0,0,0,0,0,0],"overflow":[0,0,0,0,0,0,0,0,0]}}"#,
            ),
        );
    }

    #[test]
    fn a_field_from_the_next_version_is_ignored_and_a_wrong_one_is_refused() {
        let newer = GOLDEN_TABLE.replace(r#""weight":1000"#, r#""weight":1000,"zone":"a""#);
        assert!(serde_json::from_str::<TableWire>(&newer).unwrap().into_model().is_ok());
        for (from, to) in [
            (r#""weight":1000"#, r#""weight":1001"#),
            ("haaaaaaaaa", "../../etc/"),
            ("10.1.0.2:8080", "nowhere"),
            (r#""path":"/""#, r#""path":"api""#),
            ("internal-5", "internal-500"),
            (r#"{"v":1"#, r#"{"v":2"#),
            (r#""stack":"shop""#, r#""stack":"Shop""#),
        ] {
            let wire: TableWire = serde_json::from_str(&GOLDEN_TABLE.replace(from, to)).unwrap();
            assert!(wire.into_model().is_err(), "{to}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            at in 0..GOLDEN_TABLE.len(),
            with in proptest::char::any(),
        ) {
            let _ = serde_json::from_slice::<RequestFrame>(&bytes);
            let _ = serde_json::from_slice::<AnswerFrame>(&bytes);
            let mut text = GOLDEN_TABLE.to_owned();
            text.replace_range(at..=at, &with.to_string());
            if let Ok(wire) = serde_json::from_str::<TableWire>(&text) {
                let _ = wire.into_model();
            }
            let _ = serde_json::from_str::<Request>(&format!(r#"{{"kind":"publish","table":{text}}}"#));
        }
    }
}
