//! How fast it is. `cargo test -p certwave-ledger --release -- --ignored --nocapture how_fast`

use std::sync::Arc;
use std::time::Instant;

use certwave_core::model::JobState;
use certwave_ledger::{DueQuery, Ledger, SqliteLedger, Write};

use crate::fixtures::*;

fn per_second(count: u32, since: Instant) -> f64 {
    f64::from(count) / since.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints numbers, takes a minute"]
async fn how_fast() {
    const DEVICES: u32 = 100_000;
    const WRITERS: u32 = 200;
    const WRITES: u32 = 100;
    let dir = tempfile::tempdir_in(std::env::var("CERTWAVE_BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    let path = dir.path().join("ledger.db");
    let ledger = Arc::new(SqliteLedger::open(&path).unwrap());
    let epoch = ledger.take_epoch("bench", NOW).await.unwrap();

    for round in ["first", "again"] {
        let began = Instant::now();
        for batch in (0..DEVICES).step_by(1000) {
            ledger
                .declare(epoch, NOW, (batch..batch + 1000).map(declaration).collect())
                .await
                .unwrap();
        }
        println!("declare ({round}): {:.0} devices/s", per_second(DEVICES, began));
    }

    let began = Instant::now();
    let enrolling = (0..WRITERS).map(|w| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            for n in (w..DEVICES).step_by(WRITERS as usize) {
                enrol(&*ledger, epoch, n, 30 + i64::from(n % 60)).await;
            }
        })
    });
    for task in enrolling.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    println!(
        "read and write with certificate, {WRITERS} at a time: {:.0}/s",
        per_second(DEVICES, began)
    );

    let began = Instant::now();
    let stepping = (0..WRITERS).map(|w| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            let mut d = device(&*ledger, w).await;
            for n in 0..WRITES {
                d.job = Some(job(u64::from(w) << 32 | u64::from(n / 5), JobState::Sent));
                d.last_seen = Some(NOW + i64::from(n));
                let mut write = Write::of(d.clone(), NOW);
                write.audit = vec![audit(&d.id, NOW, "step")];
                d.revision = ledger.write(epoch, write).await.unwrap();
            }
        })
    });
    for task in stepping.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    println!(
        "write of a step, {WRITERS} at a time: {:.0}/s",
        per_second(WRITERS * WRITES, began)
    );

    let began = Instant::now();
    let mut d = device(&*ledger, 1).await;
    for _ in 0..200 {
        d.revision = ledger.write(epoch, Write::of(d.clone(), NOW)).await.unwrap();
    }
    println!("write, one at a time: {:.0}/s", per_second(200, began));

    let began = Instant::now();
    for n in 0..10_000 {
        device(&*ledger, n * 7 % DEVICES).await;
    }
    println!("read of a device, one at a time: {:.0}/s", per_second(10_000, began));

    for _ in 0..2 {
        let began = Instant::now();
        let counts = ledger.counts(&fleet("pumps"), NOW, NOW).await.unwrap();
        println!("counts of {}: {:?}", counts.total, began.elapsed());
    }
    let query = DueQuery {
        now: NOW,
        expires_before_s: NOW_S + 40 * DAY_S,
        issuer: Some("bb".repeat(20)),
        bundle: Some(hash("bundle", 1)),
        limit: 500,
    };
    let began = Instant::now();
    let due = ledger.due(&fleet("pumps"), &query).await.unwrap().len();
    println!("due, {due} found: {:?}", began.elapsed());
    let began = Instant::now();
    let members = ledger
        .start_rotation(epoch, rotation("r"), [("ring".to_owned(), "1".to_owned())].into())
        .await;
    println!(
        "start of a Rotation, {} members: {:?}",
        members.unwrap(),
        began.elapsed()
    );
    let began = Instant::now();
    let dirty = ledger.unprojected(500, NOW + 1).await.unwrap();
    println!("unprojected, {} found: {:?}", dirty.len(), began.elapsed());
    println!("file: {} MiB", std::fs::metadata(&path).unwrap().len() >> 20);
}
