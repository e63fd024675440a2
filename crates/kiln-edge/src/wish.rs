//! Where a request is to go whatever the draw says: to its user's group, or to the group that it is aimed at.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use hyper::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use kiln_model::route::{Group, HeaderMatch, Pool, PoolKey, Sticky};

/// A place in `0..2^64` that stands for a user: the groups of a pool lie there side by side, each as wide as its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u64);

/// Where a request is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Any,
    /// To the group that lies there.
    At(Place),
    /// To this group. It is no random sample of the requests, so no analysis may count it.
    To(Group),
}

/// What a request is looked at for.
#[derive(Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) address: IpAddr,
    /// The client reached whoever is in front over TLS. A forged word for it only keeps the forger's cookie from clear text.
    pub(crate) secure: bool,
}

/// A user who gets a cookie with the answer.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    id: u64,
    pub(crate) cookie: HeaderValue,
}

/// How a pool's requests are sorted.
#[derive(Debug)]
pub(crate) struct Wishes {
    aim: Vec<(HeaderName, HeaderMatch, Group)>,
    sticky: Option<Key>,
    seed: u64,
}

#[derive(Debug)]
enum Key {
    Cookie { name: String, attributes: String },
    Header(HeaderName),
    Address,
}

impl Wishes {
    /// None if the pool leaves every request to the draw.
    pub(crate) fn new(key: &PoolKey, pool: &Pool) -> Option<Self> {
        let aim = pool.aim.iter().filter_map(|aim| {
            let name = HeaderName::from_bytes(aim.header.as_bytes()).ok()?;
            Some((name, aim.value.clone(), aim.group))
        });
        let aim: Vec<_> = aim.collect();
        let sticky = pool.sticky.as_ref().and_then(Key::new);
        if aim.is_empty() && sticky.is_none() {
            return None;
        }
        // Not the port: whoever is in a canary on one port of a service is so on the others.
        let seed = hash(FNV_OFFSET, format!("{}/{}", key.env, key.service).as_bytes());
        Some(Self { aim, sticky, seed })
    }

    /// Returns where a request is to go. A user who is seen for the first time becomes a newcomer, and stays the same one
    /// when the request is sent again.
    pub(crate) fn of(&self, asker: &Asker<'_>, newcomer: &mut Option<Newcomer>) -> Wish {
        let known = newcomer.take();
        let is_aimed = |(name, value, _): &&(HeaderName, HeaderMatch, Group)| {
            asker.headers.get_all(name).iter().any(|header| matches(value, header.as_bytes()))
        };
        if let Some((_, _, group)) = self.aim.iter().find(is_aimed) {
            return Wish::To(*group);
        }
        let user = |id: &[u8]| Wish::At(Place(spread(hash(self.seed, id))));
        match &self.sticky {
            None => Wish::Any,
            Some(Key::Header(name)) => match asker.headers.get(name) {
                Some(value) => user(value.as_bytes()),
                None => Wish::Any,
            },
            Some(Key::Address) => match asker.address.to_canonical() {
                IpAddr::V4(address) => user(&address.octets()),
                IpAddr::V6(address) => user(&address.octets()),
            },
            Some(Key::Cookie { name, attributes }) => {
                if let Some(id) = cookie(asker.headers, name) {
                    return user(id);
                }
                let id = known.map_or_else(random, |known| known.id);
                let text = format!("{id:016x}");
                let secure = if asker.secure { "; Secure" } else { "" };
                let cookie = HeaderValue::try_from(format!("{name}={text}{attributes}{secure}"));
                *newcomer = cookie.ok().map(|cookie| Newcomer { id, cookie });
                user(text.as_bytes())
            }
        }
    }
}

impl Key {
    fn new(sticky: &Sticky) -> Option<Self> {
        Some(match sticky {
            Sticky::Cookie { name, max_age } => {
                let seconds = max_age.0 / 1000;
                let attributes = format!("; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax");
                Self::Cookie { name: name.clone(), attributes }
            }
            Sticky::Header { name } => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            Sticky::Address => Self::Address,
        })
    }
}

fn matches(value: &HeaderMatch, header: &[u8]) -> bool {
    match value {
        HeaderMatch::Exact(text) => header == text.as_bytes(),
        HeaderMatch::Prefix(text) => header.starts_with(text.as_bytes()),
        HeaderMatch::Present => true,
    }
}

/// Finds a cookie's value (RFC 6265 §5.4); an empty one is none.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    pairs
        .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .find(|value| !value.is_empty())
}

/// A number that no two users share: from keys that the standard library took from the system, another for each call.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a (Fowler, Noll, Vo). Fixed for ever: a user's place must outlive edges and their versions.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads neighbours over the whole range, which FNV alone does not for its highest bits: MurmurHash3's finalizer (Appleby).
fn spread(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use kiln_model::route::Aim;
    use kiln_model::{EnvKey, EnvName, Millis, ServiceName, StackName};

    use super::*;

    fn wishes(sticky: Option<Sticky>, aim: Vec<Aim>) -> Option<Wishes> {
        let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("dev").unwrap() };
        let key = PoolKey { env, service: ServiceName::new("web").unwrap(), port: 80 };
        Wishes::new(&key, &Pool { sticky, aim, ..Pool::default() })
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    fn ask(wishes: &Wishes, lines: &[(&'static str, &'static str)]) -> (Wish, Option<Newcomer>) {
        let mut newcomer = None;
        let asker = Asker { headers: &headers(lines), address: [192, 0, 2, 1].into(), secure: false };
        (wishes.of(&asker, &mut newcomer), newcomer)
    }

    fn by_cookie() -> Wishes {
        let sticky = Sticky::Cookie { name: "kiln".to_owned(), max_age: Millis::from_secs(3600) };
        wishes(Some(sticky), vec![]).unwrap()
    }

    #[test]
    fn a_pool_without_wishes_has_none() {
        assert!(wishes(None, vec![]).is_none());
    }

    #[test]
    fn a_newcomer_gets_a_cookie_and_with_it_has_the_place_of_the_first_request() {
        let wishes = by_cookie();
        let (first, newcomer) = ask(&wishes, &[("cookie", "other=1; kiln=")]);
        let newcomer = newcomer.unwrap();
        let cookie = newcomer.cookie.to_str().unwrap().to_owned();
        let (pair, attributes) = cookie.split_once(';').unwrap();
        assert_eq!(attributes, " Max-Age=3600; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(pair.len(), "kiln=".len() + 16);
        let pair: &'static str = Box::leak(format!("a=b; {pair};c=kiln=x").into_boxed_str());
        let (again, none) = ask(&wishes, &[("cookie", pair)]);
        assert_eq!(again, first);
        assert!(none.is_none());

        let mut same = Some(newcomer.clone());
        let asker = Asker { headers: &HeaderMap::new(), address: [192, 0, 2, 1].into(), secure: true };
        assert_eq!(wishes.of(&asker, &mut same), first, "when it is sent again");
        assert_eq!(same.unwrap().cookie.to_str().unwrap(), format!("{cookie}; Secure"));
        assert_ne!(ask(&wishes, &[]).0, first, "somebody else");
    }

    #[test]
    fn the_place_of_a_user_is_the_same_for_ever() {
        let (place, _) = ask(&by_cookie(), &[("cookie", "kiln=0123456789abcdef")]);
        assert_eq!(place, Wish::At(Place(4_306_522_202_025_761_333)));
    }

    #[test]
    fn neighbours_are_spread_evenly() {
        let seed = by_cookie().seed;
        let places = (0..10_000).map(|user: u32| spread(hash(seed, user.to_string().as_bytes())));
        let below = places.filter(|place| *place < u64::MAX / 20).count();
        // 500 ± 4.6 standard deviations; the same in every run.
        assert!((400..600).contains(&below), "{below}");
    }

    #[test]
    fn a_header_or_the_address_stands_for_a_user_and_without_it_there_is_none() {
        let header = wishes(Some(Sticky::Header { name: "X-User".to_owned() }), vec![]).unwrap();
        assert_eq!(ask(&header, &[]).0, Wish::Any);
        let anna = ask(&header, &[("x-user", "anna")]).0;
        assert!(matches!(anna, Wish::At(_)) && anna != ask(&header, &[("x-user", "ben")]).0);
        let address = wishes(Some(Sticky::Address), vec![]).unwrap();
        let at = |address_text: &str| {
            let address_of = address_text.parse().unwrap();
            let asker = Asker { headers: &HeaderMap::new(), address: address_of, secure: false };
            address.of(&asker, &mut None)
        };
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn the_first_aim_that_matches_outranks_the_users_place() {
        let aim = |header: &str, value, group| Aim { header: header.to_owned(), value, group };
        let aims = vec![
            aim("X-Version", HeaderMatch::Exact("old".to_owned()), Group::Stable),
            aim("X-Version", HeaderMatch::Prefix("new-".to_owned()), Group::Canary),
            aim("X-Tester", HeaderMatch::Present, Group::Canary),
        ];
        let wishes = wishes(Some(Sticky::Address), aims).unwrap();
        assert_eq!(ask(&wishes, &[("x-version", "old"), ("x-tester", "")]).0, Wish::To(Group::Stable));
        assert_eq!(ask(&wishes, &[("x-version", "new-1")]).0, Wish::To(Group::Canary));
        assert_eq!(ask(&wishes, &[("x-tester", "")]).0, Wish::To(Group::Canary));
        assert!(matches!(ask(&wishes, &[("x-version", "older")]).0, Wish::At(_)));
    }
}
