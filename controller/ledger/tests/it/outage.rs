//! PostgreSQL killed, gone, cut off and slow. These tests have servers of their own, which write to disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use certwave_ledger::{Ledger, LedgerError, PostgresLedger, Write};
use certwave_protocol::ids::Epoch;

use crate::fixtures::*;
use crate::postgres::{free_port, open};
use crate::server::Postgres;

const DEVICES: u32 = 8;
const PATIENCE: Duration = Duration::from_mins(1);

/// What the writer of one device knows: the last revision that was acknowledged.
async fn write_until(ledger: Arc<PostgresLedger>, epoch: Epoch, n: u32, stop: Arc<AtomicBool>) -> (u64, u32) {
    let (mut acknowledged, mut failures) = (1, 0);
    while !stop.load(Ordering::Relaxed) {
        let read = ledger.device(&identity(n)).await;
        let written = match read {
            Ok(d) => {
                let d = d.unwrap();
                assert!(d.revision >= acknowledged, "device {n} went back to {}", d.revision);
                let mut write = Write::of(d.clone(), NOW);
                let serial = u64::from(n) << 32 | d.revision;
                write.certificate = Some(certificate(&identity(n), serial, 30));
                write.audit = vec![audit(&identity(n), NOW, "issued")];
                ledger.write(epoch, write).await
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(revision) => acknowledged = revision,
            Err(LedgerError::Unavailable(_)) => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(other) => panic!("device {n}: {other}"),
        }
    }
    (acknowledged, failures)
}

/// Writes go on for all devices while `harm` is done; then every acknowledged one is there, whole, and nothing else is.
async fn survives(ledger: Arc<PostgresLedger>, harm: impl AsyncFnOnce(&PostgresLedger)) {
    let epoch = begin(&*ledger, DEVICES).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..DEVICES)
        .map(|n| tokio::spawn(write_until(Arc::clone(&ledger), epoch, n, Arc::clone(&stop))))
        .collect();
    harm(&ledger).await;
    // It has come back by itself.
    let before = again(async || ledger.device(&identity(0)).await)
        .await
        .unwrap()
        .revision;
    reached(&ledger, before + 3).await;
    stop.store(true, Ordering::Relaxed);
    let mut failures = 0;
    for (n, writer) in (0..).zip(writers) {
        let (acknowledged, failed) = writer.await.unwrap();
        failures += failed;
        let d = again(async || ledger.device(&identity(n)).await).await.unwrap();
        // The last one may have happened though nobody heard of it.
        assert!((acknowledged..=acknowledged + 1).contains(&d.revision), "device {n}");
        let written = d.revision - 1;
        let lines = again(async || ledger.audit(&identity(n), u32::MAX).await).await;
        assert_eq!(lines.len() as u64, written);
        for revision in 1..d.revision {
            let serial = u64::from(n) << 32 | revision;
            let stored = again(async || ledger.certificate(&hash("certificate", serial)).await).await;
            assert!(stored.is_some(), "certificate {revision} of device {n}");
        }
    }
    assert!(failures > 0, "nobody noticed");
    again(async || ledger.verify_audit().await).await;
}

/// Reads, as often as it takes: each connection finds out by itself that the server is back.
async fn again<T>(read: impl AsyncFn() -> certwave_ledger::Result<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match read().await {
            Err(error) if error.is_outage() && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            done => return done.unwrap(),
        }
    }
}

/// Waits until device 0 has a revision; the ledger may not be available meanwhile.
async fn reached(ledger: &PostgresLedger, revision: u64) {
    let end = Instant::now() + PATIENCE;
    while again(async || ledger.device(&identity(0)).await)
        .await
        .is_none_or(|d| d.revision < revision)
    {
        assert!(Instant::now() < end, "device 0 does not reach revision {revision}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    let mut server = Postgres::start(free_port(), &[]).unwrap();
    let ledger = Arc::new(open(&server.database().unwrap()).unwrap());
    survives(ledger, async |ledger| {
        for revision in [10, 25, 60] {
            reached(ledger, revision).await;
            server.kill().unwrap();
            server.resume().unwrap();
        }
        reached(ledger, 70).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_in_the_middle_of_writes_leave_no_half_of_one() {
    let server = Postgres::start(free_port(), &[]).unwrap();
    let ledger = Arc::new(open(&server.database().unwrap()).unwrap());
    survives(ledger, async |ledger| {
        for revision in (5..60).step_by(5) {
            reached(ledger, revision).await;
            let cut =
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'certwave'";
            server.sql("postgres", cut).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_for_a_while_is_an_outage_that_ends_by_itself() {
    let mut server = Postgres::start(free_port(), &[]).unwrap();
    let ledger = open(&server.database().unwrap()).unwrap();
    let epoch = begin(&ledger, 1).await;
    let d = device(&ledger, 0).await;
    server.kill().unwrap();
    let gone = Instant::now();
    let mut longest = Duration::ZERO;
    while gone.elapsed() < Duration::from_secs(4) {
        let began = Instant::now();
        let read = ledger.device(&identity(0)).await.unwrap_err();
        let written = ledger.write(epoch, Write::of(d.clone(), NOW)).await.unwrap_err();
        assert!(read.is_outage() && written.is_outage(), "{read}, {written}");
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        longest < Duration::from_secs(2),
        "who asks is told at once: {longest:?}"
    );
    server.resume().unwrap();
    let end = Instant::now() + PATIENCE;
    while let Err(error) = ledger.write(epoch, Write::of(d.clone(), NOW)).await {
        assert!(error.is_outage() && Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match ledger.device(&identity(0)).await {
            Ok(found) => break assert_eq!(found.unwrap().revision, 2),
            Err(error) => assert!(error.is_outage() && Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_write_holds_up_no_read_and_ends_in_an_outage_or_well() {
    let server = Arc::new(Postgres::start(free_port(), &[]).unwrap());
    let url = server.database().unwrap();
    let ledger = Arc::new(open(&url).unwrap());
    let epoch = begin(&*ledger, 1).await;
    let d = device(&*ledger, 0).await;
    let slow = Arc::clone(&server);
    let hold = std::thread::spawn(move || {
        slow.sql(
            "ledger0",
            "BEGIN; SELECT one FROM fence FOR UPDATE; SELECT pg_sleep(2); COMMIT",
        )
        .unwrap();
    });
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'";
    while server.sql("postgres", locked).unwrap() != "1" {
        assert!(!hold.is_finished());
    }
    let writer = Arc::clone(&ledger);
    let write = tokio::spawn(async move { writer.write(epoch, Write::of(d, NOW)).await });
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(device(&*ledger, 0).await.revision, 1);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(!write.is_finished());
    assert_eq!(write.await.unwrap(), Ok(2));
    hold.join().unwrap();
}
