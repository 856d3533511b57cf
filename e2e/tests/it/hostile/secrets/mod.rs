//! Secrets stay where they belong: they are in no log, event, status, metric, history or support bundle, whatever goes wrong.

mod doors;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use certwave_crds::{DeviceCertificate, RotationPhase};
use certwave_e2e::postgres::Postgres;
use certwave_e2e::stack::Stack;
use certwave_e2e::{http, ports, programs, wait_for};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use crate::cli::bundle::unpacked;
use crate::cli::plugin::Plugin;
use crate::faults::world::{SOON, World, patch};
use crate::shared;

/// Bytes of a key that are enough to know it by: more than chance, less than a line.
const TELLING: usize = 24;
/// Of PEM (RFC 7468, 2).
const LINE: usize = 64;
/// The ledger's.
const PASSWORD: &str = "Hunter2-Hunter2-Hunter2-Hunter2";
/// Logs are long: by so many bytes a form is looked up first.
const PREFIX: usize = 8;

/// One secret, in each form in which it could be written somewhere.
struct Needle {
    /// Whose it is.
    name: String,
    forms: Vec<Vec<u8>>,
}

impl Needle {
    /// The end of a private key's secret part, raw and as programs write bytes.
    fn of_key(name: String, pem: &[u8]) -> Self {
        let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
        let der = key.secret_der();
        // PKCS #8 of an elliptic curve: ECPrivateKey with version 1 and the scalar, an OCTET STRING (RFC 5915, 3).
        let mark = [2, 1, 1, 4];
        let at = der.windows(mark.len()).position(|window| window == mark).unwrap() + mark.len() + 1;
        let mut needle = Self::of(name, &der[at..at + TELLING]);
        // Base64 of the whole, within a line of PEM.
        let from = at.div_ceil(3) * 4;
        let broken = from % LINE + TELLING > LINE;
        let from = if broken { from.next_multiple_of(LINE) } else { from };
        for encoded in [STANDARD.encode(der), URL_SAFE_NO_PAD.encode(der)] {
            needle.forms.push(encoded.as_bytes()[from..from + TELLING].to_vec());
        }
        needle
    }

    /// So many bytes that tell it, as programs write them; Base64 wherever they begin in a group of three.
    fn of(name: String, secret: &[u8]) -> Self {
        let secret = &secret[secret.len() - TELLING..];
        let list = format!("{secret:?}");
        let mut forms = vec![
            secret.to_vec(),
            hex::encode(secret).into_bytes(),
            hex::encode_upper(secret).into_bytes(),
            list.trim_matches(['[', ']']).as_bytes().to_vec(),
        ];
        for before in 0..3 {
            let (shifted, first) = ([&[0; 2][..before], secret].concat(), usize::from(before > 0) * 4);
            for encoded in [STANDARD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                forms.push(encoded.as_bytes()[first..first + TELLING].to_vec());
            }
        }
        Self { name, forms }
    }
}

/// Whose secret is in the text, if anybody's.
fn found<'n>(text: &[u8], needles: &'n [Needle]) -> Option<&'n str> {
    let mut by_prefix: HashMap<&[u8], Vec<(&Needle, &[u8])>> = HashMap::new();
    for needle in needles {
        for form in &needle.forms {
            by_prefix.entry(&form[..PREFIX]).or_default().push((needle, form));
        }
    }
    (0..text.len().saturating_sub(PREFIX)).find_map(|at| {
        let candidates = by_prefix.get(&text[at..at + PREFIX])?;
        let fits = |(_, form): &&(&Needle, &[u8])| text[at..].starts_with(form);
        candidates.iter().find(fits).map(|(needle, _)| needle.name.as_str())
    })
}

/// Every private key there is: of CAs, the broker, the controller, the claim and the devices.
async fn needles(stack: &Stack) -> Vec<Needle> {
    let secrets = stack.secrets().await.unwrap();
    let mut needles = Vec::new();
    for secret in secrets {
        let name = secret.metadata.name.unwrap_or_default();
        for (key, value) in secret.data.into_iter().flatten() {
            if value.0.starts_with(b"-----BEGIN PRIVATE KEY") {
                needles.push(Needle::of_key(format!("{name}/{key}"), &value.0));
            }
        }
    }
    let of_cluster = needles.len();
    for path in files(stack.directory()) {
        let text = std::fs::read(&path).unwrap();
        let begin = b"-----BEGIN PRIVATE KEY";
        if let Some(at) = text.windows(begin.len()).position(|window| window == begin) {
            // A claim's is within JSON.
            let pem = String::from_utf8_lossy(&text[at..]).replace("\\n", "\n");
            needles.push(Needle::of_key(path.display().to_string(), pem.as_bytes()));
        }
    }
    assert!(
        of_cluster >= 4 && needles.len() >= of_cluster + 4,
        "there were keys to look for"
    );
    needles
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// All that was written where others read, by its place: what the cluster shows, what the controller answers, what support gets, logs and a
/// ledger in a file. Devices and controller are off then.
async fn written(world: &mut World, device: &str) -> BTreeMap<String, Vec<u8>> {
    let mut written: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let api = &world.stack.api;
    for kinds in ["certwave", "events", "configmaps", "leases"] {
        let objects = api
            .kubectl(["get", kinds, "-n", world.stack.namespace(), "-o", "yaml"])
            .unwrap();
        written.insert(kinds.to_owned(), objects.into_bytes());
    }
    written.insert(
        "metrics".to_owned(),
        world.stack.controller_metrics().await.unwrap().into_bytes(),
    );
    let histories = http::get(
        world.stack.history(),
        &format!("/history/{}/{}", world.stack.namespace(), device),
    )
    .await
    .unwrap();
    written.insert("history".to_owned(), histories.1.into_bytes());
    let bundle = world.stack.directory().join("bundle.tar.gz");
    Plugin::of(&world.stack).run(&["bundle", "-f", bundle.to_str().unwrap()]);
    written.insert("bundle".to_owned(), unpacked(&bundle).into_bytes());
    world.switch_off("m");
    world.stack.stop_controller().unwrap();
    for path in files(world.stack.directory()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_log = path.extension().is_some_and(|end| end == "log");
        if is_log || name == "m.json" || name.starts_with("ledger.sqlite") {
            written.insert(name, std::fs::read(&path).unwrap());
        }
    }
    written
}

fn is_there(written: &BTreeMap<String, Vec<u8>>, also: &[&str]) {
    for wanted in [
        "certwave.log",
        "m.log",
        "m.json",
        "events",
        "bundle",
        "certwave",
        "metrics",
        "history",
    ]
    .iter()
    .chain(also)
    {
        assert!(
            written.get(*wanted).is_some_and(|text| text.len() > 100),
            "{wanted} is empty: {:?}",
            written.keys()
        );
    }
}

#[tokio::test]
async fn no_private_key_is_ever_written_where_somebody_else_reads() {
    let mut stack = Stack::on(shared::api().await, "secrets").await.unwrap();
    stack.log("trace");
    let mut world = World::on(stack, 10).await;
    let ids = world.enrol("m", 3, &["--fault", "fail-test:bad_certificate=m-1"]).await;
    // Failures are what people log; a breach goes on to its end, too.
    world.rotate(
        "fails",
        &json!({ "defaults": { "successPercent": 100, "maxLost": 0, "onBreach": "Abort" } }),
    );
    let ended = world.ended("fails").await;
    assert_eq!(ended.phase, Some(RotationPhase::Failed), "{ended:?}");
    let revoked = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, &ids[2], &revoked).await;
    world.stack.stop_controller().unwrap();
    world.stack.start_controller().await.unwrap();

    let written = written(&mut world, &ids[0]).await;
    is_there(&written, &["ledger.sqlite"]);
    let log = String::from_utf8_lossy(&written["certwave.log"]);
    assert!(log.contains("TRACE"), "everything was logged");

    let needles = needles(&world.stack).await;
    for (place, text) in &written {
        assert_eq!(found(text, &needles), None, "a private key is in {place}");
    }
    // What is looked for would be found.
    let secrets = world.stack.secrets().await.unwrap();
    let pem = secrets
        .iter()
        .find_map(|secret| secret.data.as_ref()?.get("tls.key").cloned())
        .unwrap();
    let text = String::from_utf8(pem.0).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(&body).unwrap();
    for form in [
        text,
        body,
        format!("{der:?}"),
        hex::encode(&der),
        STANDARD.encode(&der[5..]),
    ] {
        assert!(found(form.as_bytes(), &needles).is_some(), "{form}");
    }
}

#[tokio::test]
async fn no_password_and_no_token_is_ever_written_where_somebody_else_reads() {
    let mut server = Postgres::start(ports::free().unwrap(), &[]).unwrap();
    server.create_database("ledger").unwrap();
    server.require_password(PASSWORD).unwrap();
    let with_password = format!("certwave:{PASSWORD}@");
    let url = server.tcp_url("ledger").replace("certwave@", &with_password);
    assert!(url.contains(PASSWORD));
    let mut stack = Stack::on(shared::api().await, "secrets-pg").await.unwrap();
    stack.log("trace");
    stack.keep_ledger(url.clone());
    let mut world = World::on(stack, 3).await;
    let ids = world.enrol("m", 1, &[]).await;
    // What goes wrong is logged with where it went wrong.
    server.kill().unwrap();
    let mut verify = Command::new(programs::certwave().unwrap());
    let refused = verify.args(["ledger", "verify", "--ledger", &url]).output().unwrap();
    assert!(!refused.status.success());
    let told = wait_for("the log to tell of it", SOON, || async {
        let log = std::fs::read_to_string(world.stack.directory().join("certwave.log"))?;
        ensure!(log.contains("ledger is out"), "it says nothing of the ledger");
        Ok(())
    });
    world.told(told.await);
    server.resume().unwrap();
    world.rotate("after", &json!({}));
    assert_eq!(world.ended("after").await.phase, Some(RotationPhase::Complete));

    let token = world.stack.token().unwrap();
    let mut written = written(&mut world, &ids[0]).await;
    written.insert(
        "what the command says".to_owned(),
        [refused.stdout, refused.stderr].concat(),
    );
    let mut dump = server.client("pg_dump").unwrap();
    let dumped = dump.arg(server.url("ledger")).output().unwrap();
    written.insert("the ledger".to_owned(), dumped.stdout);
    is_there(&written, &["the ledger"]);
    let log = String::from_utf8_lossy(&written["certwave.log"]);
    assert!(log.contains("TRACE") && log.contains("POST"), "everything was logged");
    let needles = [
        Needle::of("the ledger's password".to_owned(), PASSWORD.as_bytes()),
        Needle::of("the service account's token".to_owned(), token.as_bytes()),
    ];
    for (place, text) in &written {
        assert_eq!(found(text, &needles), None, "it is in {place}");
    }
    for said in [url, format!("authorization: Bearer {token}"), STANDARD.encode(PASSWORD)] {
        assert!(
            found(said.as_bytes(), &needles).is_some(),
            "what is looked for would be found"
        );
    }
}
