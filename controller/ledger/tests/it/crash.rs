//! `kill -9` in the middle of writing: what was acknowledged is there, and what was not is there whole or not at all.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use certwave_core::model::{Credential, JobState};
use certwave_core::revocation::Standing;
use certwave_core::rollout::run::Run;
use certwave_ledger::{Ledger, NewMember, RunWrite, SqliteLedger, SqliteOptions, Target, Write};

use crate::fixtures::*;
use crate::revocations::{REVOKE, mark, standing};

const FILE: &str = "CERTWAVE_TEST_LEDGER";
const DEVICES: u32 = 16;

/// Not a test: the process that the test below kills. Each device's task issues, audits and acknowledges on stdout for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by a_killed_writer_loses_nothing_that_it_acknowledged"]
async fn writer_to_be_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let ledger = Arc::new(SqliteLedger::open(path).unwrap());
    let epoch = ledger.take_epoch("child", NOW).await.unwrap();
    ledger
        .declare(epoch, NOW, (0..DEVICES).map(declaration).collect())
        .await
        .unwrap();
    let tasks: Vec<_> = (0..DEVICES)
        .map(|n| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                loop {
                    let mut d = device(&*ledger, n).await;
                    let serial = u64::from(n) << 32 | d.revision;
                    let record = certificate(&identity(n), serial, 30);
                    d.previous = d.current.replace(Credential::from(&record));
                    d.job = Some(job(serial, JobState::Confirmed));
                    let mut write = Write::of(d, NOW);
                    write.certificate = Some(record);
                    write.audit = vec![audit(&identity(n), NOW, "issued")];
                    let revision = ledger.write(epoch, write).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    if writeln!(out, "acknowledged {n} {revision}")
                        .and_then(|()| out.flush())
                        .is_err()
                    {
                        return; // Nobody listens any more.
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut acknowledged: HashMap<u32, u64> = HashMap::new();
    let mut epoch = 0;
    for lines in [1, 17, 160, 61, 250, 3, 399, 90] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::writer_to_be_killed", "--ignored", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut heard = 0;
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let fields: Vec<_> = line.split(' ').collect();
            // The test harness writes lines too. The last line may be cut short, to a smaller number.
            let &["acknowledged", n, revision] = fields.as_slice() else {
                continue;
            };
            let (Ok(n), Ok(revision)) = (n.parse(), revision.parse::<u64>()) else {
                continue;
            };
            let last = acknowledged.entry(n).or_default();
            *last = (*last).max(revision);
            heard += 1;
            if heard >= lines && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the writer ended by itself");

        let check = SqliteOptions {
            check: true,
            ..SqliteOptions::default()
        };
        let ledger = SqliteLedger::open_with(&path, &check).unwrap();
        let present = ledger.epoch().await.unwrap();
        assert!(present > epoch);
        epoch = present;
        for n in 0..DEVICES {
            let d = device(&ledger, n).await;
            assert!(
                d.revision >= acknowledged.get(&n).copied().unwrap_or(1),
                "device {n} went back to {}",
                d.revision
            );
            // Each write added one revision, one line of audit, one certificate and one job, together.
            let written = d.revision - 1;
            assert_eq!(
                ledger.audit(&identity(n), u32::MAX).await.unwrap().len() as u64,
                written
            );
            for revision in 1..d.revision {
                let serial = u64::from(n) << 32 | revision;
                assert!(
                    ledger
                        .certificate(&hash("certificate", serial))
                        .await
                        .unwrap()
                        .is_some()
                );
            }
            if written > 0 {
                let serial = u64::from(n) << 32 | written;
                assert_eq!(d.current.unwrap().fingerprint, hash("certificate", serial));
                assert_eq!(d.job.unwrap().id, job_id(serial));
            }
        }
        ledger.close().await;
    }
    assert!(acknowledged.values().sum::<u64>() > 100);
}

#[tokio::test]
async fn a_log_cut_anywhere_holds_each_revocation_whole_or_not_at_all() {
    const STEPS: u32 = 6;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let log = dir.path().join("ledger.db-wal");
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = begin(&ledger, STEPS).await;
    let mut records = Vec::new();
    for n in 0..STEPS {
        records.push(enrol(&ledger, epoch, n, 30).await);
    }
    let length = || usize::try_from(std::fs::metadata(&log).unwrap().len()).unwrap();
    let mut ends = vec![length()];
    for n in 0..STEPS {
        let revoked = mark(Target::Device(identity(n)), REVOKE);
        ledger.mark(epoch, NOW, vec![revoked]).await.unwrap();
        ends.push(length());
    }
    let (file, log) = (std::fs::read(&path).unwrap(), std::fs::read(&log).unwrap());
    let cuts = ends.windows(2).flat_map(|w| [w[0], w[0].midpoint(w[1]), w[1] - 1]);
    for cut in cuts.chain([log.len()]) {
        let after = tempfile::tempdir().unwrap();
        let path = after.path().join("ledger.db");
        std::fs::write(&path, &file).unwrap();
        std::fs::write(after.path().join("ledger.db-wal"), &log[..cut]).unwrap();
        let ledger = SqliteLedger::open(&path).unwrap();
        let done = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(ledger.last_change().await.unwrap(), done as u64, "cut at {cut}");
        assert_eq!(ledger.verify_audit().await.unwrap().0, done as u64);
        for (n, record) in records.iter().enumerate() {
            let revoked = matches!(standing(&ledger, record).await, Standing::Revoked { .. });
            let barred = device(&ledger, u32::try_from(n).unwrap()).await.bar.is_some();
            assert_eq!((revoked, barred), (n < done, n < done), "device {n}, cut at {cut}");
        }
    }
}

/// Power fails: of what was being written, any part may have reached the disk, with anything behind it.
#[tokio::test]
async fn a_log_cut_anywhere_holds_every_write_acknowledged_before_the_cut_and_no_half_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let log = dir.path().join("ledger.db-wal");
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = begin(&ledger, 1).await;
    let length = || usize::try_from(std::fs::metadata(&log).unwrap().len()).unwrap();
    let start = length();
    let mut ends = Vec::new();
    for n in 0..12 {
        let mut write = Write::of(device(&ledger, 0).await, NOW);
        write.certificate = Some(certificate(&identity(0), n, 30));
        write.audit = vec![audit(&identity(0), NOW, "issued")];
        ledger.write(epoch, write).await.unwrap();
        ends.push(length());
    }
    let (file, log) = (std::fs::read(&path).unwrap(), std::fs::read(&log).unwrap());
    assert!(
        ends.is_sorted_by(|a, b| a < b),
        "each acknowledged write has lengthened the log: {ends:?}"
    );

    let near_the_ends = ends.iter().flat_map(|end| [end - 1, *end, end + 1]);
    for (cut, garbage) in (start..log.len())
        .step_by(5000)
        .chain(near_the_ends)
        .zip([0, 1, 7000].into_iter().cycle())
    {
        let after = tempfile::tempdir().unwrap();
        let path = after.path().join("ledger.db");
        let mut rest = log[..cut.min(log.len())].to_vec();
        rest.extend(std::iter::repeat_n(0xa5, garbage));
        std::fs::write(&path, &file).unwrap();
        std::fs::write(after.path().join("ledger.db-wal"), rest).unwrap();
        let check = SqliteOptions {
            check: true,
            ..SqliteOptions::default()
        };
        let ledger = SqliteLedger::open_with(&path, &check).unwrap();
        let written = ends.iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(device(&ledger, 0).await.revision, 1 + written, "cut at {cut}");
        assert_eq!(ledger.audit(&identity(0), 100).await.unwrap().len() as u64, written);
        for n in 0..12 {
            let stored = ledger.certificate(&hash("certificate", n)).await.unwrap();
            assert_eq!(stored.is_some(), n < written, "certificate {n}, cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_log_cut_anywhere_holds_each_step_of_a_run_whole_or_not_at_all() {
    const STEPS: u32 = 8;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let log = dir.path().join("ledger.db-wal");
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = begin(&ledger, STEPS).await;
    for n in 0..STEPS {
        enrol(&ledger, epoch, n, 30).await;
    }
    let rows = ledger.candidates(&fleet("pumps"), NOW, None, STEPS).await.unwrap();
    ledger.begin_rotation(epoch, rotation("r"), Vec::new()).await.unwrap();
    let length = || usize::try_from(std::fs::metadata(&log).unwrap().len()).unwrap();
    let mut ends = vec![length()];
    for (n, candidate) in (0..).zip(rows) {
        let run = Run {
            wave: n + 1,
            ..Run::default()
        };
        let write = RunWrite {
            plan: Some(plan(&[n + 1])),
            join: vec![NewMember {
                row: candidate.row,
                wave: 0,
                ordinal: n,
                group: format!("site-{n}"),
                windows: u64::MAX,
            }],
            audit: vec![audit(&identity(0), NOW, "joined")],
            ..RunWrite::of(run)
        };
        ledger.write_run(epoch, "r", NOW, write).await.unwrap();
        ends.push(length());
    }
    let (file, log) = (std::fs::read(&path).unwrap(), std::fs::read(&log).unwrap());
    let cuts = ends.windows(2).flat_map(|w| [w[0], w[0].midpoint(w[1]), w[1] - 1]);
    for cut in cuts.chain([log.len()]) {
        let after = tempfile::tempdir().unwrap();
        let path = after.path().join("ledger.db");
        std::fs::write(&path, &file).unwrap();
        std::fs::write(after.path().join("ledger.db-wal"), &log[..cut]).unwrap();
        let ledger = SqliteLedger::open(&path).unwrap();
        let steps = u32::try_from(ends.iter().filter(|end| **end <= cut).count() - 1).unwrap();
        let stored = ledger.rotation("r").await.unwrap().unwrap();
        let counts = ledger.wave_counts("r").await.unwrap();
        let waves: u32 = counts.iter().map(|w| w.planned).sum();
        let said = ledger.audit(&identity(0), 100).await.unwrap().len();
        assert_eq!(
            (stored.run.wave, stored.members, waves),
            (steps, steps, steps),
            "cut at {cut}"
        );
        assert_eq!(said, steps as usize);
        if steps > 0 {
            assert_eq!(stored.record.plan, plan(&[steps]));
        }
    }
}
