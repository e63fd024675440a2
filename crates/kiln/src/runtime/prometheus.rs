//! Asks Prometheus, or what speaks as it does, for one number. Whatever it answers, this comes back with it or with a reason.

use std::time::Duration;

use kiln_model::outside::{Number, OutsideMetric};
use serde::Deserialize;
use serde_json::Value;

use super::outward::{agent, brief};

/// How long an answer may take, from the name's resolution to the last byte. A query that takes longer is none to ask every few
/// seconds.
const WITHIN: Duration = Duration::from_secs(10);
/// One number takes some hundred bytes; a query that forgot to aggregate should be told so, and takes more.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// A proxy in front may send to https and to another path.
const REDIRECTS_MAX: u32 = 3;

/// Whom to ask: one for the process, so that connections are kept.
#[derive(Debug, Clone)]
pub(super) struct Prometheus {
    within: Duration,
    /// Asks whomever the machine trusts.
    agent: ureq::Agent,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self::within(WITHIN)
    }
}

impl Prometheus {
    fn within(within: Duration) -> Self {
        Self { within, agent: agent(within, REDIRECTS_MAX, None) }
    }

    /// Returns the value of a metric's query now; `authorization` says who asks.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn ask(&self, metric: &OutsideMetric, authorization: Option<&str>) -> Result<Number, String> {
        let url = format!("{}/api/v1/query", metric.prometheus.trim_end_matches('/'));
        let agent = match metric.access.roots.as_deref() {
            Some(roots) => &agent(self.within, REDIRECTS_MAX, Some(roots)),
            None => &self.agent,
        };
        let mut question = agent.get(&url).query("query", &metric.query);
        if let Some(authorization) = authorization {
            question = question.header("authorization", authorization);
        }
        let answer = question.call();
        let mut answer = answer.map_err(|error| brief(&error.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_string();
        let body =
            body.map_err(|error| brief(&format!("it answered {status}, and not to the end: {error}")))?;
        value(status, &body).map_err(|reason| brief(&reason))
    }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// Reads the one number of an answer (Prometheus, HTTP API, instant queries).
fn value(status: u16, body: &str) -> Result<Number, String> {
    let Ok(answer) = serde_json::from_str::<Answer>(body) else {
        return Err(format!("it answered {status} with what Prometheus never says: {body}"));
    };
    if answer.status != "success" {
        return Err(format!("it answered {status}: {}", answer.error));
    }
    let Some(data) = answer.data else { return Err("it answered without data".to_owned()) };
    let sample = match (data.kind.as_str(), &data.result) {
        ("scalar", sample) => sample,
        ("vector", Value::Array(series)) => match series.as_slice() {
            [] => return Err("the query has no result".to_owned()),
            [one] => &one["value"],
            many => {
                let count = many.len();
                return Err(format!(
                    "the query has {count} results where one is needed: aggregate them, as in `sum(…)`"
                ));
            }
        },
        (other, _) => return Err(format!("the query is a {other} where a number is needed")),
    };
    let text = sample.get(1).and_then(Value::as_str).ok_or("the query is no number")?;
    text.parse().map(Number).map_err(|_| format!("`{text}` is no number"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use kiln_model::Millis;
    use kiln_model::access::Access;

    use super::*;

    #[test]
    fn one_number_is_read_and_nothing_else() {
        let vector = |result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#)
        };
        let one = r#"{"metric":{"job":"web"},"value":[1435781451.781,"0.25"]}"#;
        assert_eq!(value(200, &vector(one)), Ok(Number(0.25)));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"+Inf"]}}"#;
        assert_eq!(value(200, scalar), Ok(Number(f64::INFINITY)));
        let nan = r#"{"metric":{},"value":[1,"NaN"]}"#;
        assert!(value(200, &vector(nan)).unwrap().0.is_nan());
        let says = |status, body: &str, what: &str| {
            let reason = value(status, body).unwrap_err();
            assert!(reason.contains(what), "{reason}");
        };
        says(200, &vector(""), "no result");
        says(200, &vector(&format!("{one},{one}")), "2 results where one");
        says(200, &vector(r#"{"metric":{},"histogram":[1,{}]}"#), "no number");
        says(200, &vector(r#"{"metric":{},"value":[1,"many"]}"#), "`many` is no number");
        says(200, r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, "a matrix");
        says(200, r#"{"status":"success","data":{"resultType":"string","result":[1,"x"]}}"#, "a string");
        says(400, r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, "400: parse error");
        says(200, "<html>sign in</html>", "never says: <html>");
        says(503, "", "503");
        says(200, r#"{"status":"success"}"#, "without data");
    }

    fn metric(url: &str, query: &str) -> OutsideMetric {
        OutsideMetric {
            name: "queue".into(),
            prometheus: url.into(),
            access: Access::default(),
            query: query.into(),
            success: None,
            failure: None,
            interval: Millis(1000),
            count: 1,
            failure_limit: 0,
            inconclusive_limit: 0,
            error_limit: 0,
            dry_run: false,
        }
    }

    /// Answers one connection with this, and keeps it open if told so.
    fn server(answer: &'static str, stays: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if stays {
                // Until the asker has enough.
                let _ = stream.read(&mut [0]);
            }
            head
        });
        url
    }

    #[test]
    fn whatever_answers_there_is_a_value_or_a_reason() {
        let prometheus = Prometheus::default();
        let asked = |url: &str, query: &str| prometheus.ask(&metric(url, query), Some("Bearer token"));
        let body = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}"#;
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(asked(&server(whole.leak(), false), "up == 1"), Ok(Number(7.0)));
        let broken = server("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", false);
        assert!(asked(&broken, "up").unwrap_err().contains("not to the end"));
        let error = server("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", false);
        assert!(asked(&error, "up").unwrap_err().contains("500"));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reason = asked(&format!("http://{nobody}"), "up").unwrap_err();
        assert!(!reason.is_empty());
    }

    #[test]
    fn an_answer_without_an_end_is_not_waited_for() {
        let endless = server("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", true);
        let silent = server("", true);
        for url in [endless, silent] {
            let prometheus = Prometheus::within(Duration::from_millis(200));
            assert!(prometheus.ask(&metric(&url, "up"), None).unwrap_err().contains("timeout"));
        }
    }
}
