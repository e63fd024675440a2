//! Copies of requests for a canary: counted apart, and no original waits for one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_model::route::{Backend, Group, Mirror, Pool, Sampling};
use kiln_model::sample::GroupSamples;
use kiln_model::{RolloutId, Weight};

use crate::origin::Origin;
use crate::process::eventually;
use crate::world::{World, backend, pool_key};

const WINDOW: Sampling = Sampling { rollout: RolloutId(9), window: 1 };

fn mirrored(stable: &Origin, canary: &Origin, share: u16) -> Pool {
    let stable = backend(1, 1, stable.address);
    let canary =
        Backend { weight: Weight::new(0).unwrap(), group: Group::Canary, ..backend(2, 2, canary.address) };
    let mirror = Some(Mirror { share: Weight::new(share).unwrap() });
    Pool { backends: vec![stable, canary], sampling: Some(WINDOW), mirror, ..Pool::default() }
}

fn canary(world: &World) -> GroupSamples {
    let key = pool_key("web");
    world
        .edge
        .client
        .samples(&key.env, &key.service, WINDOW)
        .unwrap()
        .unwrap()
        .remove(&Group::Canary)
        .unwrap()
}

#[test]
fn safe_requests_are_copied_and_what_comes_of_the_copies_is_counted_apart() {
    let stable = Origin::polite("stable", Duration::from_secs(60));
    let copies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&copies);
    let shadow = Origin::start(move |mut connection| {
        while let Some(head) = connection.head() {
            let fails = head.first_line.contains("/new");
            seen.lock()
                .unwrap()
                .push((head.first_line.clone(), head.header("kiln-mirror").map(str::to_owned)));
            if fails {
                connection.send("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
            } else {
                connection.answer("shadow");
            }
        }
    });
    let mut world = World::new();
    world.publish_pool(mirrored(&stable, &shadow, 1000));
    let mut connection = world.connect();
    for n in 0..20 {
        let path = if n % 4 == 0 { "/new" } else { "/old" };
        assert_eq!(connection.get(path).text(), "stable ");
        assert_eq!(connection.post(path, "x").text(), "stable x");
    }
    let counted = eventually(|| Some(canary(&world)).filter(|canary| canary.mirror.answered == 20));
    assert_eq!(counted.requests() + counted.left, 0, "none of its own");
    eventually(|| (canary(&world).mirror.differed == 5).then_some(()));
    assert_eq!((counted.mirror.lost, counted.mirror.skipped), (0, 0));
    let copies = copies.lock().unwrap();
    assert_eq!(copies.len(), 20);
    assert!(
        copies.iter().all(|(line, mark)| line.starts_with("GET /") && mark.as_deref() == Some("1")),
        "{copies:?}"
    );
    let total = world.settled();
    assert_eq!((total.begun, total.answered), (40, 40), "the ledger counts what clients sent");
}

#[test]
fn only_the_share_that_was_asked_for_is_copied() {
    let stable = Origin::polite("stable", Duration::from_secs(60));
    let shadow = Origin::polite("shadow", Duration::from_secs(60));
    let mut world = World::new();
    world.publish_pool(mirrored(&stable, &shadow, 100));
    let mut connection = world.connect();
    for _ in 0..200 {
        assert_eq!(connection.get("/").text(), "stable ");
    }
    let counted = eventually(|| Some(canary(&world).mirror).filter(|mirror| mirror.answered >= 18));
    assert!(counted.answered <= 22 && counted.skipped + counted.lost == 0, "{counted:?}");
}

#[test]
fn a_canary_that_hangs_fails_no_original_and_takes_no_more_copies_than_it_may() {
    let stable = Origin::polite("stable", Duration::from_secs(60));
    let hanging = Origin::start(|mut connection| connection.wait_for_end());
    let mut world = World::new();
    world.publish_pool(mirrored(&stable, &hanging, 1000));
    let mut connection = world.connect();
    for _ in 0..100 {
        assert_eq!(connection.get("/").text(), "stable ");
    }
    // At most 64 are under way; on a machine so slow that some have been given up by now, those are lost.
    let counted = canary(&world).mirror;
    assert!(counted.skipped + counted.lost >= 36 && counted.answered == 0, "{counted:?}");
}
