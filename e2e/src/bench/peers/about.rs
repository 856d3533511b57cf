//! What the page says about each group, whatever the figures are.

/// How the page begins.
pub(super) const HEAD: &str = "\
# Benchmarks against peers

<!-- Made from benchmarks.json by `make bench-peers`; `make bench-page` makes it again. Do not edit. -->

`make bench-peers` measures Certwave and what people use today, side by side in one run on one machine. The subjects of a group take
turns: one round each, then the next round, so that whatever slows the machine down meets all of them. A figure is the median of the
rounds, with the lowest and the highest beside it. The last column is the median of the rounds' own ratios and says how many times as
good Certwave is: 2 × is twice as fast, or half as much of what should be little; below 1 × the other one wins.

All keys are P-256. Load generators, simulated devices, broker and API server run on the same cores as what is measured. The peers run
as they are by default; what differs is said below. Go's programs are built from the modules in `e2e/peers`, which pin every version and
checksum.
";

/// How it ends.
pub(super) const FOOT: &str = "
## What takes how long
On 2 cores a run of the full size takes about half an hour, and the first one 10 minutes more for building. `GROUPS=\"ocsp crl\"` measures
these alone, `ROUNDS=n` so many rounds, and `CERTWAVE_BENCH_DIVISOR=100` a hundredth of everything. Fewer than 5 rounds or a divisor are a
quick look: it goes to `target/bench` in place of this page. `make bench` measures Certwave alone, and more of it.
";

/// What is said about one group.
pub(super) struct About {
    pub(super) title: &'static str,
    pub(super) text: &'static str,
}

/// What is said about the group of this name.
pub(super) fn of(group: &str) -> About {
    match group {
        "ocsp" => About {
            title: "OCSP: `openssl ocsp`, and a bare HTTP server",
            text: "\
`certwave responder` with 100,000 certificates in its ledger is asked for 1,000 of them. *Prepared* answers are those to requests without a
nonce; *signed for the request* are those to requests with one. The bare server is hyper, on which Certwave's is built: it reads the
request and answers with fixed bytes of the same length, without looking. More than that no responder on hyper can do. Both are asked
over 64 connections that stay open; the bare server once in a round, so its figures stand twice.

`openssl ocsp` signs each answer, knows the same certificates from its index, serves one client at a time on one thread and closes the
connection after each answer. So both are asked over 4 connections at a time, a new one for each request, all with a nonce. Where it cannot use the
second core, CPU time for each answer is the fairer figure.",
        },
        "crl" => About {
            title: "CRLs: rcgen, Go's crypto/x509, `openssl ca`",
            text: "\
A list of 1,000,000 entries, each with a serial number of 16 bytes, date and reason, is made and signed, each time in a process of its own.
Memory is the most that was resident, beyond what the process had before and beyond the list itself. OpenSSL's program is measured whole:
it starts, reads its index file and writes PEM. Certwave's encoder takes the entries one by one, as the ledger gives them out; rcgen and
Go take a list of all entries, and making that list is part of their time.",
        },
        "issue" => About {
            title: "Issuing: step-ca, OpenBao",
            text: "\
5,000 requests (PKCS#10), made before the clock starts, become certificates that are in the database, 256 at a time. Both check the
request's signature, render a template and sign. There is no network on either side: Certwave's CA and ledger, and step-ca's authority with its
database, are called within their process, without envelopes here and without one-time tokens there. Both have what `init` or the chart gives
them: SQLite with `synchronous=FULL`, Badger with `SyncWrites`; what is acknowledged is on disk. Certwave's transaction holds the
device's state besides the certificate.

OpenBao is missing: the module with its PKI engine was not to be had where this was written (`go list -m
github.com/openbao/openbao@latest`: 403 Forbidden, \"This module version is not available\"; the same for `sdk/v2`), and `api/v2`, which is, holds
only a client.",
        },
        _ => About {
            title: "Rotation: cert-manager",
            text: "\
2,000 simulated devices are rotated by one Rotation without waves; and 2,000 Certificates of a CA issuer, each with a fresh P-256 key, are
renewed by cert-manager, asked as `cmctl renew --all` asks. Both use the same API server, and run throughout; the one that is not measured
is idle. Time is from the first request until the last certificate is there. CPU time is that of the controller's process, and
requests are all that the API server answered meanwhile, up to the last write that follows, without Leases, watches and what the
benchmark itself asked.

What differs: Certwave's certificates are *confirmed*: each device made its key, connected to a broker with mutual TLS and the new
certificate, tested it, was told to commit, and has said so; devices and broker use the same cores. cert-manager makes the keys itself, and a
certificate counts as soon as it is in its Secret; whether anybody uses it nobody knows. Certwave's ledger is on disk, while etcd, where
cert-manager keeps everything, runs here without fsync.

cert-manager runs with its program's defaults (5 workers for each controller, no limit on its requests, as the API server has priority and
fairness) and with those of its controllers that a CA issuer needs. Its webhook is left out, as are ACME, Vault, Venafi, metrics and leader election: all
of them would only add to its work.",
        },
    }
}
