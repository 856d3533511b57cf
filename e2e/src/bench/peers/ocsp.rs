//! OCSP answers of `certwave responder`, of a bare hyper server and of `openssl ocsp`.

use std::sync::Arc;

use anyhow::Result;

use super::results::{Better, Figure, Rounds};
use super::{CERTWAVE, machine};
use crate::bench::ocsp::{Bench, CLOSED, KEPT, LEAST, Nonce, first_answer, fixed};
use crate::bench::scaled;
use crate::bench::wire::{Load, Measured, load};
use crate::process::Process;
use crate::scratch::Scratch;

/// In the ledger, and in OpenSSL's index.
const CERTIFICATES: usize = 100_000;
/// Of these, asked for again and again.
const ASKED: usize = 1_000;

/// The figures of one way to ask.
struct Way {
    answers: Figure,
    latency: Figure,
    cpu: Figure,
}

const PREPARED: Way = way([
    "prepared answers",
    "prepared answers, 99th percentile",
    "prepared answers, CPU time for each",
]);
const SIGNED: Way = way([
    "signed for the request",
    "signed for the request, 99th percentile",
    "signed for the request, CPU time for each",
]);
const ANEW: Way = way([
    "signed, each on its own connection",
    "signed, each on its own connection, 99th percentile",
    "signed, each on its own connection, CPU time for each",
]);

const fn way([answers, latency, cpu]: [&'static str; 3]) -> Way {
    Way {
        answers: Figure {
            name: answers,
            unit: "1/s",
            better: Better::More,
        },
        latency: Figure {
            name: latency,
            unit: "µs",
            better: Better::Less,
        },
        cpu: Figure {
            name: cpu,
            unit: "µs",
            better: Better::Less,
        },
    }
}

impl Way {
    fn add(&self, rounds: &mut Rounds, of: &str, measured: &Measured) {
        rounds.add(self.answers, of, measured.per_second);
        rounds.add(self.latency, of, measured.p99.as_secs_f64() * 1e6);
        rounds.add(self.cpu, of, measured.cpu);
    }
}

/// All three servers run throughout; one at a time is asked.
pub(super) async fn measure(rounds: &mut Rounds) -> Result<Vec<String>> {
    let scratch = Scratch::new("peers-ocsp")?;
    let bench = Bench::new(scratch.path())?;
    let count = scaled(CERTIFICATES);
    bench.fill(count).await?;
    let plain = bench.requests(ASKED.min(count), Nonce::Without)?;
    let nonced = bench.requests(ASKED.min(count), Nonce::With)?;

    let responder = bench.responder().await?;
    let size = first_answer(responder.1, &plain).await?;
    let hyper = fixed(scratch.path(), size).await?;
    let openssl = bench.openssl(count)?;
    first_answer(openssl.1, &plain).await?;
    let ask = async |server: &(Process, _), requests: &Arc<_>, how: Load| {
        load(&server.0, server.1, Arc::clone(requests), LEAST, how).await
    };
    for _ in 0..rounds.count() {
        PREPARED.add(rounds, CERTWAVE, &ask(&responder, &plain, KEPT).await?);
        SIGNED.add(rounds, CERTWAVE, &ask(&responder, &nonced, KEPT).await?);
        // One measurement to compare both with: it is the same answer each time.
        let bare = ask(&hyper, &plain, KEPT).await?;
        PREPARED.add(rounds, "bare hyper", &bare);
        SIGNED.add(rounds, "bare hyper", &bare);
        ANEW.add(rounds, CERTWAVE, &ask(&responder, &nonced, CLOSED).await?);
        ANEW.add(rounds, "openssl ocsp", &ask(&openssl, &nonced, CLOSED).await?);
    }
    Ok(vec![
        machine::certwave(),
        machine::library("hyper")?,
        machine::openssl()?,
    ])
}
