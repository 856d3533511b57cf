//! Two replicas publish CRLs, and the one that stood still too long finds out that it leads no more.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use certwave_e2e::http::{self, sample};
use certwave_e2e::witness::Witness;
use certwave_e2e::{ports, wait_for};

use super::world::Shared;

/// A Lease that nobody renews holds 15 s.
const TAKEN_OVER: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_mins(1);

/// Keeps each CRL that is stored, with who had stored it: the address of its connection.
const RECORD: &str = "
    CREATE TABLE published (at BIGSERIAL, issuer TEXT, partition TEXT, number BIGINT, content TEXT, port INT, epoch BIGINT);
    CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO published (issuer, partition, number, content, port, epoch)
        VALUES (NEW.issuer, NEW.partition, NEW.number, md5(NEW.der), inet_client_port(), (SELECT max(epoch) FROM epochs WHERE part = ''));
        RETURN NULL;
    END $$;
    CREATE TRIGGER record AFTER INSERT OR UPDATE OF number, der ON crls FOR EACH ROW EXECUTE FUNCTION record();";

async fn leads(address: SocketAddr) -> Result<bool> {
    Ok(sample(&http::get(address, "/metrics").await?.1, "certwave_leader", &[]) == Some(1.0))
}

/// Waits until so many certificates are revoked and a CRL says so.
async fn listed(world: &Shared, count: usize) {
    let listed = wait_for("the CRL to say so", SOON, || async {
        let found = world.sql("SELECT count(*) FROM marks WHERE revoked_at IS NOT NULL AND crl_number IS NOT NULL")?;
        ensure!(found.parse::<usize>()? >= count, "{found} of {count} are listed");
        Ok(())
    });
    world.told(listed.await);
}

/// Looks at all CRLs at these replicas; the numbers, by replica.
async fn look(witness: &mut Witness, world: &Shared, at: &[SocketAddr]) -> Vec<Vec<Option<u64>>> {
    let scopes = world
        .sql("SELECT issuer || '/' || partition FROM crls ORDER BY 1")
        .unwrap();
    let mut seen = Vec::new();
    for &address in at {
        let mut numbers = Vec::new();
        for scope in scopes.lines() {
            numbers.push(world.told(witness.look(address, scope).await));
        }
        seen.push(numbers);
    }
    seen
}

#[tokio::test]
async fn a_leader_that_stood_still_for_longer_than_its_lease_publishes_nothing_more() {
    let mut world = Shared::new("pg-deposed").await;
    let first = world.stack.http();
    let second: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free().unwrap()).into();
    let mut follower = world.stack.start_replica("certwave-1", second).await.unwrap();
    let ids = world.enrol("m", 4, &[]).await;
    world.sql(RECORD).unwrap();
    world.revoke(&ids[0]).await;
    listed(&world, 1).await;
    let mut witness = Witness::default();
    look(&mut witness, &world, &[first, second]).await;

    // In the middle of it: the revocation is recorded, and its CRL is to be made.
    world.revoke(&ids[1]).await;
    let recorded = wait_for("the revocation to be recorded", SOON, || async {
        let found = world.sql("SELECT count(*) FROM marks WHERE revoked_at IS NOT NULL")?;
        ensure!(found == "2", "{found}");
        Ok(())
    });
    world.told(recorded.await);
    world.stack.controller().unwrap().pause().unwrap();
    let led = wait_for("the other to lead", TAKEN_OVER, || async {
        ensure!(leads(second).await?, "it waits");
        Ok(())
    });
    world.told(led.await);
    listed(&world, 2).await;
    look(&mut witness, &world, &[second]).await;
    // More to be said in the instant in which the first one wakes up.
    world.revoke(&ids[2]).await;
    world.stack.controller().unwrap().resume().unwrap();
    listed(&world, 3).await;
    let end = Instant::now() + SOON;
    while world.stack.controller().unwrap().exited().unwrap().is_none() {
        assert!(
            Instant::now() < end,
            "the deposed leader is still there\n{}",
            world.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Kubernetes starts it again; now it follows, and serves what the other publishes.
    world.stack.start_controller().await.unwrap();
    world.revoke(&ids[3]).await;
    listed(&world, 4).await;
    let end = Instant::now() + SOON;
    while let [one, other] = look(&mut witness, &world, &[first, second]).await.as_slice()
        && one != other
    {
        assert!(Instant::now() < end, "they serve different CRLs: {one:?} {other:?}");
    }
    assert!(leads(second).await.unwrap() && !leads(first).await.unwrap());
    follower.check_running().unwrap();

    let fallen = world.sql(
        "SELECT a.partition, a.number, b.number FROM published a JOIN published b
             ON a.issuer = b.issuer AND a.partition = b.partition AND a.at < b.at AND a.number >= b.number",
    );
    assert_eq!(fallen.unwrap(), "", "numbers strictly rise");
    let writers = world.sql(
        "SELECT count(DISTINCT port) FROM published WHERE epoch = (SELECT max(epoch) FROM epochs WHERE part = '')",
    );
    assert_eq!(writers.unwrap(), "1", "only the leader publishes");
    let epochs = world.sql("SELECT count(DISTINCT epoch) FROM published").unwrap();
    assert_eq!(epochs, "2", "each of the two published while it led");
    let both = world
        .sql("SELECT count(*) FROM (SELECT port FROM published GROUP BY port HAVING count(DISTINCT epoch) > 1) AS p");
    assert_eq!(both.unwrap(), "0", "nobody published in another's epoch");
}
