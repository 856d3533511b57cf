//! Everything goes wrong for half a minute; `make torture` does it for long.

use std::time::Duration;

use certwave_e2e::torture::{Kind, Options, run};

async fn tortured(options: Options) {
    let mut course = Vec::new();
    let outcome = run(&options, &mut |line| course.push(line.to_owned())).await.unwrap();
    let line = outcome.line(&options);
    println!("{line}");
    assert!(
        outcome.wrong.is_empty(),
        "{line}\n{}\n{}\nfiles in {:?}; for longer: {}",
        outcome.wrong.join("\n"),
        course.join("\n"),
        outcome.files,
        options.again()
    );
    // A run in which nothing happened has shown nothing.
    let counts = &outcome.counts;
    assert!(counts.faults >= 8 && counts.kills >= 1, "{line}\n{}", course.join("\n"));
    // Controller, clock, broker, companion, API server, ledger, the devices' line and the devices.
    let all = if std::env::var_os("CI").is_some() {
        8
    } else {
        counts.breakable
    };
    assert_eq!(counts.parts.len(), all, "{line}\n{}", course.join("\n"));
    assert!(counts.rotations >= 1 && counts.jobs.1 >= options.devices, "{line}");
    assert!(
        counts.at_limit >= 1 && counts.retired >= 1 && counts.crls.0 >= 3,
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_every_device_ends_with_a_certificate_and_no_limit_is_exceeded() {
    tortured(Options {
        seed: 7,
        time: Duration::from_secs(30),
        devices: 30,
        ledger: Kind::Sqlite,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_every_device_when_the_ledger_is_a_database_that_goes_wrong_too() {
    tortured(Options {
        seed: 11,
        time: Duration::from_secs(30),
        devices: 30,
        ledger: Kind::Postgres,
    })
    .await;
}
