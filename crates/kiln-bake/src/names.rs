//! Host names, asked for once.
//!
//! Eight connections opened at once are eight pairs of questions to a name server, and containers' networks are known to lose
//! one of a pair: the C library then waits for five seconds, twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Remembers what the system's resolver said, as long as one bake lives.
#[derive(Debug, Default)]
pub(crate) struct RememberedNames {
    system: DefaultResolver,
    known: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
}

impl Resolver for RememberedNames {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let place = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or(""),
            uri.authority().map_or("", |one| one.as_str())
        );
        // Held while the system is asked: whoever wants the same name at the same time waits for that one answer.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = known.get(&place) {
            let mut found = self.empty();
            addresses.iter().for_each(|address| found.push(*address));
            return Ok(found);
        }
        let found = self.system.resolve(uri, config, timeout)?;
        known.insert(place, found.iter().copied().collect());
        Ok(found)
    }
}
