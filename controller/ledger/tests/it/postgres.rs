//! The suite on PostgreSQL, and what concerns its database.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, OnceLock};

use certwave_ledger::{Ledger, LedgerError, Part, PostgresLedger, PostgresOptions, Write};

use crate::fixtures::*;
use crate::server::Postgres;

/// One for all tests, which have databases of their own. Nobody kills it, so it need not write to disk.
pub(crate) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(free_port(), &["fsync=off", "full_page_writes=off"]).unwrap())
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn open(url: &str) -> Result<PostgresLedger, LedgerError> {
    PostgresLedger::open(&PostgresOptions::new(url, None, None).unwrap())
}

fn fresh() -> (Arc<dyn Ledger>, ()) {
    (Arc::new(open(&server().database().unwrap()).unwrap()), ())
}

crate::suite::suite!(fresh());

/// The database's name, by its URL.
pub(crate) fn name(url: &str) -> &str {
    url.strip_prefix("postgresql:///").unwrap().split('?').next().unwrap()
}

#[tokio::test]
async fn of_two_writers_only_the_one_with_the_newer_epoch_writes() {
    let url = server().database().unwrap();
    let (old, new) = (open(&url).unwrap(), open(&url).unwrap());
    let first = begin(&old, 1).await;
    let second = new.take_epoch("new", NOW).await.unwrap();
    let d = device(&old, 0).await;
    let refused = old.write(first, Write::of(d.clone(), NOW)).await;
    assert_eq!(
        refused,
        Err(LedgerError::StaleEpoch {
            given: first,
            present: second
        })
    );
    assert_eq!(new.write(second, Write::of(d, NOW)).await, Ok(2));
    assert_eq!(device(&old, 0).await.revision, 2, "and both read the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_of_an_old_epoch_comes_after_the_new_one_was_taken() {
    let url = server().database().unwrap();
    let old = Arc::new(open(&url).unwrap());
    let new = open(&url).unwrap();
    let epoch = begin(&*old, 8).await;
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let old = Arc::clone(&old);
            tokio::spawn(async move {
                loop {
                    let write = Write::of(device(&*old, n).await, NOW);
                    if let Err(error) = old.write(epoch, write).await {
                        return error;
                    }
                }
            })
        })
        .collect();
    while device(&new, 0).await.revision < 20 {}
    new.take_epoch("new", NOW).await.unwrap();
    let mut at_once = Vec::new();
    for n in 0..8 {
        at_once.push(device(&new, n).await.revision);
    }
    for writer in writers {
        assert_eq!(writer.await.unwrap().category(), "stale-epoch");
    }
    for (n, revision) in (0..).zip(at_once) {
        assert_eq!(device(&new, n).await.revision, revision, "device {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_of_two_parts_write_one_chain_of_audit() {
    let url = server().database().unwrap();
    let writers: Vec<_> = ["main", "other"]
        .map(|id| {
            let ledger = open(&url).unwrap();
            tokio::spawn(async move {
                let part = Part::Broker(id.parse().unwrap());
                let epoch = ledger.begin_term(&part, id, NOW).await.unwrap();
                for n in 0..200 {
                    let line = audit(&identity(n), NOW, id);
                    ledger.append_audit(epoch, vec![line.clone(), line]).await.unwrap();
                }
                epoch
            })
        })
        .into();
    let mut epochs = Vec::new();
    for writer in writers {
        epochs.push(writer.await.unwrap());
    }
    assert_ne!(epochs[0], epochs[1]);
    assert_eq!(open(&url).unwrap().verify_audit().await.unwrap().0, 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_may_create_the_schema_at_once() {
    let url = server().database().unwrap();
    let openers: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || open(&url).map(drop))
        })
        .collect();
    for opener in openers {
        opener.join().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let url = server().database().unwrap();
    open(&url).unwrap().close().await;
    let supported: i64 = server()
        .sql(name(&url), "SELECT max(version) FROM schema_version")
        .unwrap()
        .parse()
        .unwrap();
    server()
        .sql(
            name(&url),
            &format!("INSERT INTO schema_version VALUES ({})", supported + 1),
        )
        .unwrap();
    let refused = open(&url).map(drop).unwrap_err();
    assert_eq!(
        refused,
        LedgerError::Newer {
            found: supported + 1,
            supported
        }
    );
}

#[tokio::test]
async fn the_audit_the_certificates_and_revocations_cannot_be_unwritten() {
    let url = server().database().unwrap();
    let ledger = open(&url).unwrap();
    let epoch = begin(&ledger, 1).await;
    enrol(&ledger, epoch, 0, 1).await;
    ledger
        .append_audit(epoch, vec![audit(&identity(0), NOW, "seen")])
        .await
        .unwrap();
    for sql in [
        "UPDATE audit SET who = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DELETE FROM certificates",
    ] {
        assert!(server().sql(name(&url), sql).is_err(), "{sql}");
    }
    assert_eq!(ledger.verify_audit().await.unwrap().0, 1);
}

#[tokio::test]
async fn text_that_the_database_cannot_hold_is_stored_without_harm() {
    let (ledger, ()) = fresh();
    let epoch = begin(&*ledger, 1).await;
    let mut line = audit(&identity(0), NOW, "seen");
    line.detail = Some("a\0b".to_owned());
    ledger.append_audit(epoch, vec![line]).await.unwrap();
    let lines = ledger.audit(&identity(0), 9).await.unwrap();
    assert_eq!(lines[0].detail.as_deref(), Some("a\u{fffd}b"));
    ledger.verify_audit().await.unwrap();
}

#[tokio::test]
async fn a_role_that_may_only_read_can_open_a_ledger() {
    let url = server().database().unwrap();
    let ledger = open(&url).unwrap();
    let epoch = begin(&ledger, 1).await;
    let role = format!("reader_{}", name(&url));
    server()
        .sql(
            name(&url),
            &format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"),
        )
        .unwrap();
    let reader = open(&url.replace("user=certwave", &format!("user={role}"))).unwrap();
    assert_eq!(device(&reader, 0).await.revision, 1);
    let refused = reader.projected(epoch, vec![(identity(0), 1)]).await.unwrap_err();
    assert!(refused.to_string().contains("permission"), "{refused}");
}

/// A CA and a certificate for `localhost`, by OpenSSL.
fn server_certificate(dir: &std::path::Path) {
    let openssl = |arguments: &str| {
        let mut command = std::process::Command::new("openssl");
        let out = command.args(arguments.split(' ')).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
    );
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.pem -subj /CN=db -days 2 \
         -CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE",
    );
}

#[tokio::test]
async fn a_server_is_spoken_to_only_if_its_certificate_is_its_own_and_vouched_for() {
    let dir = tempfile::tempdir().unwrap();
    server_certificate(dir.path());
    let mut own = Postgres::start(free_port(), &["fsync=off"]).unwrap();
    own.kill().unwrap();
    own.use_tls(&dir.path().join("server.pem"), &dir.path().join("server.key"))
        .unwrap();
    own.resume().unwrap();
    own.database().unwrap();
    let open = |host: &str, ca: Option<&str>| {
        let url = format!("postgres://certwave@{host}:{}/ledger0", own.port());
        let ca = ca.map(|name| dir.path().join(name));
        PostgresLedger::open(&PostgresOptions::new(&url, None, ca.as_deref()).unwrap())
    };
    let ledger = open("localhost", Some("ca.pem")).unwrap();
    begin(&ledger, 1).await;
    let sessions = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'certwave' AND NOT ssl";
    assert_eq!(own.sql("postgres", sessions).unwrap(), "0");
    for (host, ca) in [("127.0.0.1", Some("ca.pem")), ("localhost", None)] {
        let refused = open(host, ca).map(drop).unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{host}: {refused}");
    }
}
