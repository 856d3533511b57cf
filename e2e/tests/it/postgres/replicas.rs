//! Two controllers share a ledger in `PostgreSQL`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use certwave_e2e::http::{self, sample};
use certwave_e2e::{ports, tools, wait_for};
use serde_json::json;

use super::world::Shared;

/// A Lease that nobody renews holds 15 s.
const TAKEN_OVER: Duration = Duration::from_mins(2);

async fn leads(address: SocketAddr) -> Result<bool> {
    Ok(sample(&http::get(address, "/metrics").await?.1, "certwave_leader", &[]) == Some(1.0))
}

/// The numbers of all CRLs, by scope.
type Numbers = BTreeMap<String, u64>;

fn stored(world: &Shared) -> Numbers {
    let rows = world
        .sql("SELECT issuer || '/' || partition, number FROM crls")
        .unwrap();
    rows.lines()
        .map(|row| {
            let (scope, number) = row.split_once('|').unwrap();
            (scope.to_owned(), number.parse().unwrap())
        })
        .collect()
}

/// The numbers of these CRLs as a replica serves them, as OpenSSL reads them.
fn served(address: SocketAddr, scopes: &Numbers) -> Result<Numbers> {
    let number = |scope: &String| {
        let mut openssl = Command::new(tools::openssl()?);
        openssl.args(["crl", "-noout", "-crlnumber", "-in"]);
        let text = tools::output(openssl.arg(format!("http://{address}/crl/{scope}.crl")))?;
        let hex = text.trim().trim_start_matches("crlNumber=").trim_start_matches("0x");
        let number = u64::from_str_radix(hex, 16).with_context(|| format!("{scope}: {text}"))?;
        anyhow::Ok((scope.clone(), number))
    };
    scopes.keys().map(number).collect()
}

/// Nothing has gone back since.
fn risen(before: &Numbers, now: &Numbers) {
    for (scope, number) in before {
        assert!(now[scope] >= *number, "{scope}: {number} and then {now:?}");
    }
}

/// Waits until both serve CRLs of greater numbers than these; answers what they serve.
async fn both_serve_newer(world: &Shared, at: &[SocketAddr], before: &Numbers) -> Numbers {
    let newer = wait_for("a newer CRL at every replica", TAKEN_OVER, || async {
        let stored = stored(world);
        risen(before, &stored);
        ensure!(
            stored.iter().any(|(scope, number)| before.get(scope) < Some(number)),
            "none newer than {before:?}"
        );
        for &address in at {
            let served = served(address, &stored)?;
            risen(before, &served);
            ensure!(
                served >= stored,
                "{address} serves {served:?}, the ledger has {stored:?}"
            );
        }
        Ok(stored)
    });
    world.told(newer.await)
}

#[tokio::test]
async fn the_other_replica_takes_over_from_a_killed_leader_in_the_middle_of_a_rotation() {
    let mut world = Shared::new("pg-replicas").await;
    let first = world.stack.http();
    let second: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free().unwrap()).into();
    let mut follower = world.stack.start_replica("certwave-1", second).await.unwrap();
    assert!(leads(first).await.unwrap());

    let ids = world.enrol("m", 8, &["--fault", "slow:1s=*"]).await;
    let stolen = world.enrol("stolen", 1, &[]).await;
    let before = world.certificates().await;
    assert!(!leads(second).await.unwrap(), "two must not lead");
    world.revoke(&stolen[0]).await;
    let numbers = both_serve_newer(&world, &[first, second], &stored(&world)).await;

    world.rotate("now", &json!({}));
    world.wait_reached("confirmed", 1).await;
    world.stack.controller().unwrap().kill();
    assert!(world.reached("confirmed") < ids.len(), "it was in the middle");
    let led = wait_for("the other to lead", TAKEN_OVER, || async {
        risen(&numbers, &stored(&world));
        ensure!(leads(second).await?, "it waits");
        Ok(())
    });
    world.told(led.await);
    follower.check_running().unwrap();

    // The one that was killed comes back, waits, and serves what the other publishes.
    world.stack.start_controller().await.unwrap();
    world.rotated_once("now", &ids).await;
    world.wait_renewed(&ids, &before).await;
    world.revoke(&ids[0]).await;
    both_serve_newer(&world, &[first, second], &numbers).await;
    assert!(!leads(first).await.unwrap());
    let epochs: usize = world
        .sql("SELECT count(*) FROM epochs WHERE part = ''")
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(epochs, 2, "each leader took one");
}
