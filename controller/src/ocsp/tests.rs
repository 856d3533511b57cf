//! The responder with a ledger that the tests hold in their hands, in process and over HTTP.
#![allow(clippy::unwrap_used, clippy::panic)]

mod http;
mod world;

use std::sync::atomic::Ordering;

use certwave_core::revocation::{Reason, Standing};
use certwave_pki::ocsp::{Failure, HashAlgorithm};
use proptest::prelude::*;

use super::{Options, Reply};
use world::{NOW, World, request, with_nonce};

/// The status of a single answer: the tag after its `CertID`.
fn status(reply: &Reply, name: &[u8]) -> u8 {
    let der = match reply {
        Reply::Failure(failure) => panic!("{failure:?}"),
        Reply::Once(answer) => answer.der.clone(),
        Reply::Reusable(signed) => signed.der.to_vec(),
    };
    let at = der.windows(name.len()).position(|bytes| bytes == name).unwrap();
    der[at + name.len()]
}

const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
const UNKNOWN: u8 = 0x82;

fn failure(reply: &Reply) -> Option<Failure> {
    match reply {
        Reply::Failure(failure) => Some(*failure),
        _ => None,
    }
}

const HELD: Standing = Standing::Held { since: NOW - 60 };
const STOLEN: Standing = Standing::Revoked {
    since: NOW - 60,
    reason: Reason::KeyCompromise,
};

#[tokio::test]
async fn each_standing_has_its_status_and_what_was_never_issued_is_never_good() {
    let world = World::new().await;
    for (n, standing, expected) in [(1, Standing::Good, GOOD), (2, HELD, REVOKED), (3, STOLEN, REVOKED)] {
        world.source.set(&world.ca, n, standing);
        for algorithm in HashAlgorithm::ALL {
            let name = world.name(algorithm, n);
            assert_eq!(
                status(&world.ask(&request(std::slice::from_ref(&name))).await, &name),
                expected
            );
        }
    }
    let name = world.name(HashAlgorithm::Sha256, 4);
    let reply = world.ask(&request(std::slice::from_ref(&name))).await;
    assert_eq!(status(&reply, &name), UNKNOWN);
    assert!(matches!(reply, Reply::Once(_)), "it may be issued any time");
    world.source.set(&world.ca, 4, Standing::Good);
    assert_eq!(
        status(&world.ask(&request(std::slice::from_ref(&name))).await, &name),
        GOOD
    );
}

#[tokio::test]
async fn a_change_shows_with_the_next_look_at_the_ledger() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    let name = world.name(HashAlgorithm::Sha1, 1);
    let (plain, fresh) = (
        request(std::slice::from_ref(&name)),
        with_nonce(std::slice::from_ref(&name), &[7; 32]),
    );
    for standing in [STOLEN, Standing::Good, HELD] {
        world.ask(&plain).await;
        world.source.set(&world.ca, 1, standing);
        world.look(NOW).await.unwrap();
        let expected = if standing == Standing::Good { GOOD } else { REVOKED };
        assert_eq!(status(&world.ask(&plain).await, &name), expected);
        assert_eq!(status(&world.ask(&fresh).await, &name), expected);
    }
    let reads = world.source.reads.load(Ordering::Relaxed);
    world.ask(&plain).await;
    assert_eq!(world.source.reads.load(Ordering::Relaxed), reads, "signed ahead");
}

#[tokio::test]
async fn ten_thousand_changes_at_once_leave_nothing_good() {
    let world = World::new().await;
    for n in 1..=10_000 {
        world.source.set(&world.ca, n, Standing::Good);
    }
    world.look(NOW).await.unwrap();
    let name = |n| world.name(HashAlgorithm::Sha1, n);
    for n in (1..=10_000).step_by(100) {
        world.ask(&request(&[name(n)])).await;
    }
    for n in 1..=10_000 {
        world.source.set(&world.ca, n, STOLEN);
    }
    world.look(NOW).await.unwrap();
    for n in (1..=10_000).step_by(100) {
        assert_eq!(status(&world.ask(&request(&[name(n)])).await, &name(n)), REVOKED);
    }
}

#[tokio::test]
async fn an_answer_read_before_a_change_is_not_kept_beyond_it() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    world.look(NOW).await.unwrap();
    let name = world.name(HashAlgorithm::Sha256, 1);
    let asked = request(std::slice::from_ref(&name));
    // The read is held up between its answer and its use.
    let held = world.source.hold();
    let (early, ()) = tokio::join!(world.ask(&asked), async {
        world.source.reading().await;
        world.source.set(&world.ca, 1, STOLEN);
        world.look(NOW).await.unwrap();
        drop(held);
    });
    assert_eq!(status(&early, &name), GOOD, "it was when it was asked");
    assert_eq!(status(&world.ask(&asked).await, &name), REVOKED);
}

#[tokio::test]
async fn many_who_ask_the_same_cost_one_read_and_one_signature() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    let asked = request(&[world.name(HashAlgorithm::Sha256, 1)]);
    let before = world.source.reads.load(Ordering::Relaxed);
    let held = world.source.hold();
    let all = futures::future::join_all((0..100).map(|_| world.ask(&asked)));
    let (answers, ()) = tokio::join!(all, async {
        world.source.reading().await;
        drop(held);
    });
    assert!(answers.iter().all(|reply| matches!(reply, Reply::Reusable(_))));
    assert_eq!(world.source.reads.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn without_the_ledger_fresh_answers_serve_and_nothing_else_is_said() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    world.look(NOW).await.unwrap();
    let name = world.name(HashAlgorithm::Sha256, 1);
    let (plain, other) = (
        request(std::slice::from_ref(&name)),
        request(&[world.name(HashAlgorithm::Sha256, 2)]),
    );
    world.ask(&plain).await;
    world.source.gone(true);
    assert!(world.look(NOW + 1).await.is_err());
    assert_eq!(status(&world.ask_at(&plain, NOW + 3599).await, &name), GOOD);
    assert_eq!(failure(&world.ask(&other).await), Some(Failure::TryLater));
    assert_eq!(
        failure(&world.ask_at(&plain, NOW + 3600).await),
        Some(Failure::TryLater)
    );
    world.source.gone(false);
    assert_eq!(status(&world.ask_at(&plain, NOW + 3600).await, &name), GOOD);
}

#[tokio::test]
async fn answers_are_signed_anew_before_they_age_while_somebody_asks() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    world.source.set(&world.ca, 2, Standing::Good);
    let asked = request(&[world.name(HashAlgorithm::Sha256, 1)]);
    world.ask(&asked).await;
    for minutes in 1..300 {
        let now = NOW + minutes * 60;
        world.look(now).await.unwrap();
        let reads = world.source.reads.load(Ordering::Relaxed);
        let Reply::Reusable(signed) = world.ask_at(&asked, now).await else {
            panic!("no answer at minute {minutes}")
        };
        assert_eq!(world.source.reads.load(Ordering::Relaxed), reads, "nobody waits for it");
        assert!(
            signed.times.next_update - now >= 1800,
            "half of its validity is left: {}",
            signed.times.next_update - now
        );
    }
}

#[tokio::test]
async fn answers_are_signed_before_anybody_asks_for_devices_that_were_heard_lately() {
    let world = World::unseen();
    for n in 1..=300 {
        world.source.uses(&world.ca, n, 60);
    }
    world.source.uses(&world.ca, 301, 2 * 86_400);
    // Answers that nobody asks for are dropped at half of their validity, and made again.
    for minutes in 0..120 {
        for _ in 0..3 {
            world.look(NOW + minutes * 60).await.unwrap();
        }
    }
    let now = NOW + 119 * 60;
    let reads = world.source.reads.load(Ordering::Relaxed);
    for n in [1, 150, 300] {
        let name = world.name(HashAlgorithm::Sha1, n);
        let reply = world.ask_at(&request(std::slice::from_ref(&name)), now).await;
        assert_eq!(status(&reply, &name), GOOD);
        assert!(matches!(reply, Reply::Reusable(signed) if signed.times.next_update - now >= 1800));
    }
    assert_eq!(world.source.reads.load(Ordering::Relaxed), reads, "nobody waits for it");
    let silent = request(&[world.name(HashAlgorithm::Sha1, 301)]);
    world.ask_at(&silent, now).await;
    assert_eq!(world.source.reads.load(Ordering::Relaxed), reads + 1);
}

#[tokio::test]
async fn what_nobody_asked_for_takes_no_more_than_half_of_the_memory() {
    let options = Options {
        cache_bytes: 200_000,
        ..Options::default()
    };
    let world = World::with(options);
    for n in 1..=1000 {
        world.source.uses(&world.ca, n, 60);
    }
    for _ in 0..100 {
        world.look(NOW).await.unwrap();
    }
    let taken = world.responder.cache.bytes();
    assert!((50_000..=100_000).contains(&taken), "{taken}");
}

#[tokio::test]
async fn nobody_is_told_anything_before_the_first_look_and_while_a_backup_is_made_up() {
    let world = World::unseen();
    world.source.set(&world.ca, 1, Standing::Good);
    let name = world.name(HashAlgorithm::Sha256, 1);
    let asked = request(std::slice::from_ref(&name));
    assert_eq!(failure(&world.ask(&asked).await), Some(Failure::TryLater));
    world.look(NOW).await.unwrap();
    assert_eq!(status(&world.ask(&asked).await, &name), GOOD);
    world.source.restored(true);
    world.look(NOW).await.unwrap();
    assert_eq!(failure(&world.ask(&asked).await), Some(Failure::TryLater));
    world.source.set(&world.ca, 1, STOLEN);
    world.source.restored(false);
    world.look(NOW).await.unwrap();
    assert_eq!(status(&world.ask(&asked).await, &name), REVOKED);
}

#[tokio::test]
async fn a_ledger_that_went_back_takes_all_answers_with_it() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    world.source.set(&world.ca, 2, HELD);
    world.look(NOW).await.unwrap();
    let name = world.name(HashAlgorithm::Sha256, 1);
    let asked = request(std::slice::from_ref(&name));
    assert_eq!(status(&world.ask(&asked).await, &name), GOOD);
    world.source.replace(&world.ca, 1, STOLEN);
    world.look(NOW).await.unwrap();
    assert_eq!(status(&world.ask(&asked).await, &name), REVOKED);
}

#[tokio::test]
async fn other_cas_are_none_of_its_business() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    let stranger = World::new().await;
    let foreign = stranger.name(HashAlgorithm::Sha256, 1);
    let own = world.name(HashAlgorithm::Sha256, 1);
    for asked in [
        request(std::slice::from_ref(&foreign)),
        request(&[own.clone(), foreign.clone()]),
    ] {
        assert_eq!(failure(&world.ask(&asked).await), Some(Failure::Unauthorized));
    }
    let asked = request(&[own]);
    for (ca, expected) in [(&stranger.ca, Some(Failure::Unauthorized)), (&world.ca, None)] {
        let id = ca.key_id().to_string();
        assert_eq!(failure(&world.responder.answer(Some(&id), &asked, NOW).await), expected);
    }
}

#[tokio::test]
async fn it_is_ready_once_it_can_answer_for_a_ca_and_says_what_it_waits_for() {
    let world = World::unseen();
    let waits_for = |now| world.responder.waits_for(now).unwrap_or("nothing");
    assert!(waits_for(NOW).contains("the ledger"));
    world.look(NOW).await.unwrap();
    assert_eq!(waits_for(NOW), "nothing");
    assert!(waits_for(world.signer_not_after()).contains("ended"));
    let name = world.name(HashAlgorithm::Sha256, 1);
    world.responder.signers().remove(&world.ca.key_id().to_string());
    assert!(waits_for(NOW).contains("<ca>-ocsp"));
    let reply = world.ask(&request(&[name])).await;
    assert_eq!(failure(&reply), Some(Failure::TryLater), "the signers may come yet");
}

#[tokio::test]
async fn several_certificates_and_a_nonce_are_answered_for_one_client() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    world.source.set(&world.ca, 2, STOLEN);
    let names = [1, 2, 3].map(|n| world.name(HashAlgorithm::Sha1, n));
    let reply = world.ask(&with_nonce(&names, &[9; 20])).await;
    assert!(matches!(reply, Reply::Once(_)));
    let statuses = names.each_ref().map(|name| status(&reply, name));
    assert_eq!(statuses, [GOOD, REVOKED, UNKNOWN]);
}

#[tokio::test]
async fn a_signer_that_has_ended_says_try_later() {
    let world = World::new().await;
    world.source.set(&world.ca, 1, Standing::Good);
    let asked = request(&[world.name(HashAlgorithm::Sha256, 1)]);
    let end = world.signer_not_after();
    let Reply::Reusable(last) = world.ask_at(&asked, end - 10).await else {
        panic!("no answer")
    };
    assert_eq!(last.times.next_update, end, "no answer outlives its signer");
    assert_eq!(failure(&world.ask_at(&asked, end).await), Some(Failure::TryLater));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens in whichever order: after a look at the ledger, every answer says what stands in it.
    #[test]
    fn what_is_said_is_what_stands(steps in prop::collection::vec((1_u32..6, 0_u8..6), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::with(Options { cache_bytes: 6000, ..Options::default() });
            let mut now = NOW;
            world.look(now).await.unwrap();
            let mut truth = std::collections::BTreeMap::new();
            for (n, what) in steps {
                let standing = match what {
                    0 => Some(Standing::Good),
                    1 => Some(HELD),
                    2 => Some(STOLEN),
                    _ => None,
                };
                if let Some(standing) = standing {
                    world.source.set(&world.ca, n, standing);
                    truth.insert(n, standing);
                } else if what == 3 {
                    now += 700;
                }
                world.look(now).await.unwrap();
                let name = world.name(HashAlgorithm::Sha256, n);
                let asked = if what == 4 { with_nonce(std::slice::from_ref(&name), &[1; 16]) } else { request(std::slice::from_ref(&name)) };
                let expected = match truth.get(&n) {
                    None => UNKNOWN,
                    Some(Standing::Good) => GOOD,
                    Some(_) => REVOKED,
                };
                assert_eq!(status(&world.ask_at(&asked, now).await, &name), expected);
            }
        });
    }

    /// Bytes of anybody: an answer or a failure, and no panic.
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), flips in prop::collection::vec((0_usize..120, any::<u8>()), 0..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::with(Options::default());
            world.look(NOW).await.unwrap();
            world.ask(&bytes).await;
            let mut mutated = request(&[world.name(HashAlgorithm::Sha256, 1)]);
            let length = mutated.len();
            for (at, value) in flips {
                mutated[at % length] = value;
            }
            world.ask(&mutated).await;
        });
    }
}
