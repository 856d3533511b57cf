//! kill -9 at any moment between a person's word, the ledger, the signature and what is served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_crds::DeviceCertificate;
use certwave_e2e::witness::Witness;
use certwave_e2e::{lasting, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::{Mutex, oneshot};

use super::SOON;
use crate::faults::world::{World, patch};

const ROUNDS: usize = 10;
/// From a person's word until its CRL is served it takes this long, about, when nothing happens.
const AT_MOST: Duration = Duration::from_millis(1_200);

/// What stands revoked in the ledger, by serial number in upper case, and the CRLs as its file has them.
fn revoked(world: &World) -> Vec<String> {
    let history = world.history();
    let mut get = history
        .0
        .prepare("SELECT upper(serial) FROM marks WHERE revoked_at IS NOT NULL")
        .unwrap();
    let rows = get.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// The scopes of the devices' CRLs (`issuer/partition`).
fn scopes(world: &World) -> Vec<String> {
    let history = world.history();
    let mut get = history
        .0
        .prepare(
            "SELECT DISTINCT c.issuer || '/' || r.partition FROM certificates c JOIN crls r ON r.issuer = c.issuer",
        )
        .unwrap();
    let rows = get.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// Serial numbers on the CRL of everything, as OpenSSL reads it.
fn listed(world: &World, scopes: &[String]) -> anyhow::Result<String> {
    let mut all = String::new();
    for scope in scopes.iter().filter(|scope| scope.ends_with("/full")) {
        let mut openssl = std::process::Command::new(certwave_e2e::tools::openssl()?);
        openssl.args(["crl", "-noout", "-text", "-in"]);
        let text = certwave_e2e::tools::output(openssl.arg(format!("http://{}/crl/{scope}.crl", world.stack.http())))?;
        all.push_str(&text);
    }
    Ok(all)
}

#[tokio::test]
async fn killed_at_ten_random_moments_of_a_revocation_what_is_revoked_stays_so_and_no_number_falls_or_comes_twice() {
    let mut world = World::new("publish-kill", 4).await;
    let ids = world.enrol("m", ROUNDS, &[]).await;
    let scopes = scopes(&world);
    assert!(scopes.len() >= 2, "{scopes:?}");

    // Somebody who looks all the time.
    let witness = Arc::new(Mutex::new(Witness::default()));
    let (at, shared, wanted) = (world.stack.http(), Arc::clone(&witness), scopes.clone());
    let (stop, mut stopped) = oneshot::channel::<()>();
    let looking = lasting::runtime().spawn(async move {
        while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
            for scope in &wanted {
                shared.lock().await.look(at, scope).await?;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    });

    let mut known = 0;
    for (round, id) in ids.iter().enumerate() {
        let seed: u64 = rand::random();
        let after = AT_MOST.mul_f64(StdRng::seed_from_u64(seed).random_range(0.0..1.0));
        println!("round {round}: seed {seed:#x}, killed {after:?} after the word");
        let revocation = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
        patch::<DeviceCertificate>(&world.stack, id, &revocation).await;
        let until = Instant::now() + after;
        while Instant::now() < until {
            tokio::task::yield_now().await;
        }
        world.kill_controller().await;
        let now = revoked(&world).len();
        assert!(now >= known, "{now} are revoked, and {known} were");
        known = now;
    }

    let said = wait_for("all to be on the CRL", SOON, || async {
        let (now, text) = (revoked(&world), listed(&world, &scopes)?);
        anyhow::ensure!(now.len() == ROUNDS, "{} of {ROUNDS} are revoked", now.len());
        let missing: Vec<_> = now.iter().filter(|serial| !text.contains(serial.as_str())).collect();
        anyhow::ensure!(missing.is_empty(), "not listed: {missing:?}");
        Ok(())
    });
    world.told(said.await);
    let _ = stop.send(());
    world.told(looking.await.unwrap());
    let mut witness = witness.lock().await;
    for scope in &scopes {
        let (issuer, partition) = scope.split_once('/').unwrap();
        let stored: i64 = world
            .history()
            .0
            .query_row(
                "SELECT number FROM crls WHERE issuer = ?1 AND partition = ?2",
                [issuer, partition],
                |row| row.get(0),
            )
            .unwrap();
        let served = world.told(witness.look(at, scope).await);
        assert!(served.unwrap() >= stored.unsigned_abs(), "{scope}");
    }
    println!("{} CRLs were seen", witness.seen());
    // On a busy machine one CRL may be the first to say several of them.
    assert!(witness.seen() > scopes.len(), "{} CRLs were seen", witness.seen());
}
