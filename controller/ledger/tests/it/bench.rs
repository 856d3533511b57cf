//! How fast it is. `cargo test -p certwave-ledger --release -- --ignored --nocapture how_fast`

use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_core::model::JobState;
use certwave_ledger::{
    Candidate, CrlLines, DoorLoad, DueQuery, Ledger, MemberQuery, NewMember, RotationOutcome, SqlLedger, SqliteLedger,
    Target, Write,
};

use crate::fixtures::*;
use crate::revocations::{REVOKE, mark, publish};

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
        let counts = ledger.counts(&fleet("pumps"), counting(NOW)).await.unwrap();
        println!("counts of {}: {:?}", counts.total, began.elapsed());
    }
    let query = DueQuery {
        now: NOW,
        expires_before_s: NOW_S + 40 * DAY_S,
        failed_before_s: NOW_S + 5 * DAY_S,
        limit: 500,
    };
    let began = Instant::now();
    let due = ledger.due(&fleet("pumps"), &query).await.unwrap().len();
    println!("due, {due} found: {:?}", began.elapsed());
    let began = Instant::now();
    let dirty = ledger.unprojected(&broker(), 500, NOW + 1).await.unwrap();
    println!("unprojected, {} found: {:?}", dirty.len(), began.elapsed());
    println!("file: {} MiB", std::fs::metadata(&path).unwrap().len() >> 20);
}

/// Devices that get certificates, each by one read and one write, 200 at a time: records per second.
async fn issue<D: Send + Sync + 'static>(name: &str, ledger: SqlLedger<D>) {
    const DEVICES: u32 = 10_000;
    const WRITERS: u32 = 200;
    let ledger = Arc::new(ledger);
    let epoch = begin(&*ledger, DEVICES).await;
    let began = Instant::now();
    let writers = (0..WRITERS).map(|w| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            for n in (w..DEVICES).step_by(WRITERS as usize) {
                enrol(&*ledger, epoch, n, 30).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    println!("ledger.issue on {name}: {:.0} records/s", per_second(DEVICES, began));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints numbers"]
async fn how_fast_are_certificates_recorded() {
    let dir = tempfile::tempdir_in(std::env::var("CERTWAVE_BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    issue("SQLite", SqliteLedger::open(dir.path().join("ledger.db")).unwrap()).await;
    // With fsync.
    let server = crate::server::Postgres::start(crate::postgres::free_port(), &[]).unwrap();
    let url = server.database().unwrap();
    issue("PostgreSQL (Unix socket)", crate::postgres::open(&url).unwrap()).await;
}

/// What the scheduler asks in each round.
async fn round(ledger: &SqliteLedger) {
    let query = MemberQuery {
        now: NOW,
        through_wave: 2,
        windows: u64::MAX,
        override_before_s: None,
        full_groups: Vec::new(),
        from: (0, 0),
        limit: 200,
    };
    ledger.wave_tallies("r").await.unwrap();
    ledger.in_flight(&fleet("pumps")).await.unwrap();
    ledger.groups_in_use("r").await.unwrap();
    ledger.waiting_members("r", &query).await.unwrap();
}

/// Mean and greatest time of `what` in 50 goes.
macro_rules! goes {
    ($name:expr, $what:expr) => {
        let mut times = Vec::new();
        for _ in 0..50 {
            let began = Instant::now();
            $what;
            times.push(began.elapsed());
        }
        let mean = times.iter().sum::<Duration>() / 50;
        println!("{}: mean {mean:?}, at most {:?}", $name, times.iter().max().unwrap());
    };
}

async fn rounds(ledger: &SqliteLedger, what: &str) {
    println!("{what}, {:?}", ledger.wave_counts("r").await.unwrap());
    let pumps = fleet("pumps");
    goes!("  a round of the scheduler", round(ledger).await);
    goes!("    wave counts", ledger.wave_counts("r").await.unwrap());
    goes!("    in flight", ledger.in_flight(&pumps).await.unwrap());
    goes!("    groups in use", ledger.groups_in_use("r").await.unwrap());
}

/// Of three devices one is offline, with its job waiting; 500 are in flight, and 20,000 are done.
const UNDER_WAY: &str = "
    UPDATE devices SET job_open = 1, job_state = 'Queued', job_kind = 'rotate', job_since = 1, job_rotation = 'r'
        WHERE id <= 99000 AND id % 3 = 0;
    UPDATE devices SET job_open = 1, job_state = 'Issued', job_kind = 'rotate', job_since = 1, job_rotation = 'r'
        WHERE id <= 1500 AND id % 3 = 1;
    UPDATE members SET outcome = 'Running' WHERE device IN (SELECT id FROM devices WHERE job_open = 1);
    UPDATE members SET outcome = 'Confirmed' WHERE device BETWEEN 2000 AND 32000 AND outcome = 'Planned';";
/// Then those that are done are sent back: a third of them is offline, with its job waiting.
const ON_THE_WAY_BACK: &str = "
    UPDATE members SET outcome = 'Reverting' WHERE outcome = 'Confirmed';
    UPDATE devices SET job_open = 1, job_state = 'Queued', job_kind = 'rollback', job_since = 1, job_rotation = 'r'
        WHERE id BETWEEN 2000 AND 32000 AND id % 6 = 1;";

/// Enrolled devices, put into the file directly.
const FLEET: &str = "
    INSERT INTO fleets VALUES (1, 'plant', 'pumps');
    INSERT INTO certificates (id, fingerprint, issuer, serial, spki, public_key, not_before, not_after, kind, holder, broker,
            device, issued_at, confirmed_at, der)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
        SELECT i, randomblob(32), 'aa', i, randomblob(32), zeroblob(91), 0, 1800000000 + (10 + i % 60) * 86400, 'Device', 'd',
            'main', printf('dev-%06d', i), 1, 2, zeroblob(600) FROM n;
    INSERT INTO devices (id, broker, device, namespace, name, uid, declared, fleet, labels, current, revision, project_rev,
            changed_at, projected_rev, job_open, not_after, issuer)
        SELECT id, 'main', device, 'plant', device, 'uid', 1, 1, '{\"site\":\"a\"}', id, 1, 1, 0, 1, 0, not_after, issuer
        FROM certificates;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints numbers"]
async fn how_fast_is_a_staged_rotation() {
    let dir = tempfile::tempdir_in(std::env::var("CERTWAVE_BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    let path = dir.path().join("ledger.db");
    SqliteLedger::open(&path).unwrap().close().await;
    rusqlite::Connection::open(&path).unwrap().execute_batch(FLEET).unwrap();
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = ledger.take_epoch("bench", NOW).await.unwrap();
    let began = Instant::now();
    let mut candidates = Vec::new();
    loop {
        let after = candidates.last().map(|c: &Candidate| c.row);
        let page = ledger.candidates(&fleet("pumps"), NOW, after, 5000).await.unwrap();
        if page.is_empty() {
            break;
        }
        candidates.extend(page);
    }
    println!("{} candidates: {:?}", candidates.len(), began.elapsed());

    // Spread over the file, as a plan is, over 20 great sites and as many windows.
    let count = u32::try_from(candidates.len()).unwrap();
    let members = (0..count).map(|n| NewMember {
        row: candidates[n as usize * 7919 % candidates.len()].row,
        wave: u32::from(n > 1000) + u32::from(n > 10_000),
        ordinal: n,
        group: format!("site-{}", n / (count / 20)),
        windows: 1 << (n / (count / 20)),
    });
    let members = members.collect();
    let began = Instant::now();
    ledger.begin_rotation(epoch, rotation("r"), members).await.unwrap();
    println!("begin: {:?}", began.elapsed());

    let sites = |range: std::ops::Range<u32>| range.map(|s| format!("site-{s}")).collect::<Vec<_>>();
    for (what, full, windows) in [
        ("anybody", Vec::new(), u64::MAX),
        ("19 of 20 groups full", sites(0..19), u64::MAX),
        ("all groups full", sites(0..20), u64::MAX),
        ("the last window open", Vec::new(), 1 << 19),
        ("no window open", Vec::new(), 0),
    ] {
        let query = MemberQuery {
            now: NOW,
            through_wave: 2,
            windows,
            override_before_s: Some(NOW_S + 3 * DAY_S),
            full_groups: full,
            from: (0, 0),
            limit: 50,
        };
        let began = Instant::now();
        let found = ledger.waiting_members("r", &query).await.unwrap().len();
        println!("waiting, {what}, {found} found: {:?}", began.elapsed());
    }
    let began = Instant::now();
    ledger.wave_counts("r").await.unwrap();
    println!("wave counts: {:?}", began.elapsed());
    let began = Instant::now();
    ledger.remaining("r").await.unwrap();
    println!("remaining: {:?}", began.elapsed());
    let began = Instant::now();
    ledger.expiring_members("r", NOW_S + 11 * DAY_S, 500).await.unwrap();
    println!("expiring: {:?}", began.elapsed());
    let began = Instant::now();
    ledger.strangers("r", NOW, None, 500).await.unwrap();
    println!("strangers: {:?}", began.elapsed());
    rounds(&ledger, "planned").await;
    let mut ledger = ledger;
    for (what, sql) in [("under way", UNDER_WAY), ("on the way back", ON_THE_WAY_BACK)] {
        ledger.close().await;
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        ledger = SqliteLedger::open(&path).unwrap();
        rounds(&ledger, what).await;
    }
    let epoch = ledger.take_epoch("bench", NOW).await.unwrap();
    let began = Instant::now();
    ledger
        .end_rotation(epoch, "r", RotationOutcome::Cancelled, NOW)
        .await
        .unwrap();
    println!("end: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints numbers, takes a minute"]
async fn how_fast_revocation() {
    const DEVICES: u32 = 10_000;
    const MARKS: u32 = 1_000_000;
    let dir = tempfile::tempdir_in(std::env::var("CERTWAVE_BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    let path = dir.path().join("ledger.db");
    let ledger = Arc::new(SqliteLedger::open(&path).unwrap());
    let epoch = begin(&*ledger, DEVICES).await;
    let enrolling = (0..100).map(|w| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            for n in (w..DEVICES).step_by(100) {
                enrol(&*ledger, epoch, n, 30).await;
            }
        })
    });
    for task in enrolling.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for from in (0..DEVICES).step_by(500) {
        let marks = (from..from + 500).map(|n| mark(Target::Device(identity(n)), REVOKE));
        let call = Instant::now();
        ledger.mark(epoch, NOW, marks.collect()).await.unwrap();
        longest = longest.max(call.elapsed());
    }
    println!(
        "revoke {DEVICES} devices, 500 a call: {:?}, the longest call {longest:?}",
        began.elapsed()
    );
    let began = Instant::now();
    publish(&*ledger, epoch, "2027-02", 1, NOW).await;
    println!("note that a CRL says so: {:?}", began.elapsed());
    let load = DoorLoad {
        broker: identity(0).broker,
        node: "a".to_owned(),
        issuer: "aa".repeat(20),
        partition: "2027-02".to_owned(),
        number: 1,
        at: NOW,
    };
    let began = Instant::now();
    ledger.doors_loaded(epoch, vec![load], &["a".to_owned()]).await.unwrap();
    println!("note that the broker has loaded it: {:?}", began.elapsed());
    let began = Instant::now();
    let open = ledger.open_sessions(&identity(0).broker, 500).await.unwrap();
    println!("{} open sessions: {:?}", open.len(), began.elapsed());

    let ledger = Arc::into_inner(ledger).unwrap();
    ledger.close().await;
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute(
        "INSERT INTO marks (issuer, partition, serial, not_after, revoked_at, reason, change, requested_at, recorded_at,
             session)
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
         SELECT 'bb', '2027-02', lower(hex(randomblob(16))), ?2, ?3, 1, 1000000 + n, 0, 0, 0 FROM n",
        rusqlite::params![MARKS, NOW_S + DAY_S, NOW_S],
    )
    .unwrap();
    drop(db);
    let ledger = SqliteLedger::open(&path).unwrap();
    for partition in [Some("2027-02".to_owned()), None] {
        let what = partition.clone().unwrap_or_else(|| "all".to_owned());
        let lines = CrlLines {
            issuer: "bb".to_owned(),
            partition,
            ends_at_or_after: NOW_S,
            changed_after: None,
        };
        let (began, mut after, mut n) = (Instant::now(), None, 0);
        loop {
            let page = ledger.crl_lines(&lines, after.as_deref(), 10_000).await.unwrap();
            let Some(last) = page.last() else { break };
            n += page.len();
            after = Some(last.serial.clone());
        }
        println!("{n} lines of {what}: {:?}", began.elapsed());
    }
    let serials: Vec<_> = (0..1000).map(|n| format!("{:032x}", 1_000_000 + n)).collect();
    let began = Instant::now();
    ledger.standings(&"aa".repeat(20), &serials).await.unwrap();
    println!("1000 standings: {:?}", began.elapsed());
}
