//! Requests that Kiln makes itself while an analysis has too few: as many to the canary as to its baseline.
//!
//! They go over the connections that clients' requests go over, are marked with a header, and are counted as samples of the
//! window and apart from the others. The ledger knows nothing of them: it counts what clients sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use kiln_model::ask;
use kiln_model::route::{Group, Synthetic};

use crate::backend::Backend;
use crate::balancer::{Heed, Share};
use crate::headers::{KILN_SYNTHETIC, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::limits::{SYNTHETIC_MAX, SYNTHETICS_MAX};
use crate::mirror::{End, read_to_end, send};
use crate::samples::{Counter, SampleRef, WindowRef};
use crate::shared::Stop;
use crate::upload::RequestBody;
use crate::worker::Worker;

/// What a pool's analysis is helped with.
#[derive(Debug)]
pub(crate) struct Synthesis {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// How many each side gets in a second, those of clients included.
    rate: u64,
    /// How many each side gets in the window.
    count: u64,
    sides: [(Share, SampleRef); 2],
    under_way: AtomicU64,
}

impl Synthesis {
    /// None where one side has nobody: what only one of them got would compare nothing.
    pub(crate) fn new(synthetic: &Synthetic, shares: Vec<Share>, window: WindowRef) -> Option<Arc<Self>> {
        let side = |group: Group, shares: &mut Vec<Share>| {
            let at = shares.iter().position(|share| share.group == group)?;
            Some((shares.remove(at), window.group(group)))
        };
        let mut shares = shares;
        let sides = [side(Group::Canary, &mut shares)?, side(Group::Baseline, &mut shares)?];
        let host = HeaderValue::from_str(&synthetic.host).ok()?;
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_HOST, host.clone());
        headers.insert(HOST, host);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        headers.insert(USER_AGENT, HeaderValue::from_static("kiln"));
        headers.insert(KILN_SYNTHETIC, HeaderValue::from_static("1"));
        let method = match synthetic.method {
            ask::Method::Get => Method::GET,
            ask::Method::Head => Method::HEAD,
            // What is not safe is not made up.
            ask::Method::Post => return None,
        };
        let (uri, under_way) = (synthetic.path.parse().ok()?, AtomicU64::new(0));
        let (rate, count) = (u64::from(synthetic.rate.max(1)), u64::from(synthetic.count));
        Some(Arc::new(Self { method, uri, headers, rate, count, sides, under_way }))
    }

    /// Sends while the table that it is of is served, until each side has had its count.
    pub(crate) async fn run(self: Arc<Self>, worker: Arc<Worker>) {
        let Some(before) = self.clients(&worker) else { return };
        let mut pace = Pace { before, credit: 0, most: 2 * self.rate };
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(self.rate).unwrap_or(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let is_served = worker.shared.stop() == Stop::No && worker.shared.table.load().helps_with(&self);
            let Some(clients) = self.clients(&worker).filter(|_| is_served) else { return };
            if pace.lacks_a_pair(clients) && self.has_room(&worker) {
                self.pair(&worker);
            }
        }
    }

    /// How many of clients' requests both sides had; none where nothing is counted.
    fn clients(&self, worker: &Worker) -> Option<u64> {
        let samples = worker.shared.samples.as_ref()?;
        let of = |at: SampleRef| {
            let (all, made) = samples.attempts(at)?;
            Some(all.saturating_sub(made))
        };
        Some(of(self.sides[0].1)? + of(self.sides[1].1)?)
    }

    /// Whether one more pair may be sent. What an edge sent that was killed is counted, so it is not sent twice.
    fn has_room(&self, worker: &Worker) -> bool {
        let made = |(_, at): &(Share, SampleRef)| {
            let samples = worker.shared.samples.as_ref()?;
            Some(samples.attempts(*at)?.1)
        };
        let made = self.sides.iter().map(made).max().flatten();
        let under_way = self.under_way.load(Ordering::Relaxed);
        under_way + 2 <= SYNTHETICS_MAX && made.is_some_and(|made| made + under_way.div_ceil(2) < self.count)
    }

    /// Sends one to each side, or none: where one side can't be entered, the table is being replaced.
    fn pair(self: &Arc<Self>, worker: &Arc<Worker>) {
        let heed = Heed { now: Instant::now(), tried: &[] };
        let enter = |(share, at): &(Share, SampleRef)| {
            let backend = share.anybody(heed).backend;
            let place = backend.enter().then(|| Place { synthesis: Arc::clone(self), backend, at: *at })?;
            self.under_way.fetch_add(1, Ordering::Relaxed);
            Some(place)
        };
        let Some((canary, baseline)) = enter(&self.sides[0]).zip(enter(&self.sides[1])) else { return };
        for place in [canary, baseline] {
            tokio::spawn(place.ask(Arc::clone(worker)));
        }
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

/// What clients' requests stand for: a pair of them takes the place of one that would be made.
struct Pace {
    /// How many there were.
    before: u64,
    /// Those for which no pair was left out yet.
    credit: u64,
    /// What came long ago is no reason to be silent now.
    most: u64,
}

impl Pace {
    fn lacks_a_pair(&mut self, clients: u64) -> bool {
        self.credit = (self.credit + clients.saturating_sub(self.before)).min(self.most);
        self.before = clients;
        let left = self.credit.checked_sub(2);
        self.credit = left.unwrap_or(self.credit);
        left.is_none()
    }
}

/// A request that is under way, until it is dropped.
struct Place {
    synthesis: Arc<Synthesis>,
    backend: Arc<Backend>,
    at: SampleRef,
}

impl Place {
    async fn ask(self, worker: Arc<Worker>) {
        let Some(samples) = &worker.shared.samples else { return };
        let began = Instant::now();
        let sent = send(&self.backend, worker.index, self.synthesis.request());
        match tokio::time::timeout(SYNTHETIC_MAX, sent).await {
            Ok(Some((answer, lease))) => {
                samples.answered(self.at, answer.status().as_u16(), began.elapsed());
                samples.count(self.at, Counter::Synthetic);
                let is_failed = answer.status().is_server_error();
                match tokio::time::timeout(SYNTHETIC_MAX, read_to_end(answer)).await {
                    Ok(End::Whole) => lease.give_back(Instant::now()),
                    // An answer that failed at its head is no second failure.
                    Ok(End::Broken) if !is_failed => samples.count(self.at, Counter::Broken),
                    Ok(End::Broken | End::TooLong) | Err(_) => {}
                }
            }
            // It is away, or silent for too long.
            Ok(None) | Err(_) => {
                samples.count(self.at, Counter::Lost);
                samples.count(self.at, Counter::Synthetic);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.backend.leave();
        self.synthesis.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_is_not_made() {
        let mut pace = Pace { before: 100, credit: 0, most: 8 };
        let mut made = |clients| u32::from(pace.lacks_a_pair(clients));
        assert_eq!(made(100), 1, "nobody asks");
        assert_eq!([101, 102, 103, 104].map(&mut made).iter().sum::<u32>(), 2, "half of what is wanted");
        assert_eq!([106, 108, 110].map(&mut made).iter().sum::<u32>(), 0, "as much as is wanted");
        // A burst counts for no longer than its bound.
        assert_eq!([1000, 1000, 1000, 1000].map(&mut made).iter().sum::<u32>(), 0);
        assert_eq!(made(1000), 1);
    }
}
