//! How fast certificates are recorded.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use certwave_ledger::{CertificateKind, CertificateRecord, Ledger, PostgresLedger, PostgresOptions, SqliteLedger};
use certwave_protocol::ids::Fingerprint;

use super::{Report, number};
use crate::ports;
use crate::postgres::Postgres;
use crate::scratch::Scratch;

const RECORDS: u32 = 20_000;
/// As many at a time as devices may be in flight; those that meet share a commit.
const WRITERS: u32 = 200;
/// Unix seconds.
const NOW: i64 = 1_800_000_000;

/// `ledger.issue`: records of issued certificates per second, each on disk when it is acknowledged, on both databases.
pub(super) async fn measure(report: &mut Report) -> Result<()> {
    let scratch = Scratch::new("bench-ledger")?;
    let file = SqliteLedger::open(scratch.path().join("ledger.sqlite"))?;
    report.add("ledger.issue.sqlite", issue(Arc::new(file)).await?, "1/s")?;
    let server = Postgres::start(ports::free()?, &[])?;
    let options = PostgresOptions::new(&server.database()?, None, None)?;
    let database = PostgresLedger::open(&options)?;
    report.add("ledger.issue.postgres", issue(Arc::new(database)).await?, "1/s")
}

async fn issue(ledger: Arc<dyn Ledger>) -> Result<f64> {
    let epoch = ledger.take_epoch("bench", NOW * 1000).await?;
    let start = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                for n in (writer..RECORDS).step_by(WRITERS as usize) {
                    ledger.record(epoch, certificate(n)).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await.context("a writer")??;
    }
    Ok(number(RECORDS) / start.elapsed().as_secs_f64())
}

/// The certificate of device `n`, of the size of a real one.
fn certificate(n: u32) -> CertificateRecord {
    let public_key = format!("{n:091}").into_bytes();
    CertificateRecord {
        fingerprint: Fingerprint::of(&n.to_be_bytes()),
        serial: format!("{n:040x}"),
        issuer: "ca".repeat(20),
        spki: Fingerprint::of(&public_key),
        public_key,
        not_before: NOW,
        not_after: NOW + 31_536_000,
        kind: CertificateKind::Server,
        holder: format!("meter-{n:07}"),
        identity: None,
        job: None,
        der: vec![0x30; 700],
        issued_at: NOW * 1000,
    }
}
