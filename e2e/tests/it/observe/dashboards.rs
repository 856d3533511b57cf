//! Every panel of every dashboard has data in a real run, scraped by a real Prometheus; and is drawn from it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certwave_crds::{CertificateAuthority, DeviceCertificate, Fleet, RotationPhase};
use certwave_e2e::dashboard::{Asked, Dashboard, Scope, ask, draw};
use certwave_e2e::prometheus::Prometheus;
use certwave_e2e::stack::objects;
use certwave_e2e::{tools, wait_for};
use serde_json::json;

use super::conventions;
use crate::faults::world::patch;
use crate::rollout::world::{Staged, fleet, strategy};

const SOON: Duration = Duration::from_mins(1);
/// Where pictures are written: a directory; none are where this is not set.
const PICTURES: &str = "CERTWAVE_PICTURES";

fn unix() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A few questions to OCSP, as somebody at the door asks them.
async fn ask_ocsp(world: &Staged) {
    let devices = world.stack.devices().await.unwrap();
    let serials = devices
        .into_iter()
        .filter_map(|device| device.status?.certificates.current?.serial);
    let authority = world
        .stack
        .objects::<CertificateAuthority>()
        .get(objects::CA)
        .await
        .unwrap();
    let key_id = authority.status.and_then(|status| status.key_id).unwrap();
    let ca = world.stack.directory().join("ca.pem");
    std::fs::write(&ca, world.roots().await).unwrap();
    let url = format!("http://{}/ocsp/{key_id}", world.stack.http());
    for serial in serials.take(5) {
        let mut command = Command::new(tools::openssl().unwrap());
        command.arg("ocsp").arg("-issuer").arg(&ca).arg("-CAfile").arg(&ca);
        command.args(["-no_nonce", "-url", &url, "-serial", &format!("0x{serial}")]);
        tools::output(&mut command).unwrap();
    }
}

/// What promtool says of the metrics as they are scraped.
fn lint(exposition: &str) {
    let mut promtool = Command::new(tools::promtool().unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// A fleet that is rotated in two waves, with a gate and a soak; two devices refuse, two go back; old certificates are
/// revoked, and one device is, by a person.
async fn run(world: &mut Staged, prometheus: &Prometheus) {
    let sites = ["north", "south", "west"];
    world.enrol("m", &fleet(20, 4, &sites), &[]).await;
    let refused = [
        "--fault",
        "reject=bad-1",
        "--fault",
        "reject=bad-2",
        "--fault",
        "fail-test:unreachable=bad-3",
    ];
    world.enrol("bad", &fleet(3, 0, &sites), &refused).await;
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 4, "selector": { "matchLabels": { "ring": "canary" } }, "soak": "6s" },
                { "name": "early", "percent": 50, "soak": "3s" },
                { "name": "rest", "percent": 100 },
            ],
            "defaults": { "maxFailedPercent": 50, "successPercent": 0, "maxLost": 3 },
            "limits": { "maxInFlight": 2 },
            "gates": [{
                "prometheus": { "url": prometheus.url(), "query": "min(certwave_crl_served_ok)" },
                "above": 0.5,
                "every": "1s",
            }],
            "oldCertificate": { "retire": "Revoke", "grace": "1s", "probation": "20s" },
        })),
    );
    world.phase("run", RotationPhase::Complete).await;
    let change = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, "m-7", &change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_has_data_in_a_real_run() {
    let mut world = Staged::revoking("observe").await;
    let prometheus = Prometheus::scraping(&[("certwave", world.stack.http())]).await.unwrap();
    let offline_after = json!({ "spec": { "rotation": { "device": { "offlineAfter": "20s" } } } });
    patch::<Fleet>(&world.stack, objects::FLEET, &offline_after).await;
    let begun = unix();
    run(&mut world, &prometheus).await;
    ask_ocsp(&world).await;
    lint(&world.stack.controller_metrics().await.unwrap());

    let dashboards: Vec<Dashboard> = conventions::files()
        .iter()
        .map(|file| Dashboard::read(file).unwrap())
        .collect();
    let complete = wait_for("data for every panel", SOON, || async {
        let scope = Scope {
            range: (begun, unix()),
            rate_interval: 15,
            chosen: BTreeMap::from([("namespace".to_owned(), world.stack.namespace().to_owned())]),
        };
        let mut drawn = Vec::new();
        for dashboard in &dashboards {
            let answers = ask(dashboard, &prometheus, &scope).await?;
            let empty = empty(dashboard, &answers);
            anyhow::ensure!(empty.is_empty(), "{}: no data for {empty:#?}", dashboard.title);
            drawn.push((dashboard.uid.clone(), draw(dashboard, &answers, scope.range)));
        }
        Ok(drawn)
    });
    let drawn = world.told(complete.await);
    for (uid, picture) in drawn {
        assert!(!picture.contains("No data") && !picture.contains("NaN"), "{uid}");
        if let Some(directory) = std::env::var_os(PICTURES) {
            std::fs::write(PathBuf::from(directory).join(format!("{uid}.svg")), picture).unwrap();
        }
    }
}

/// The queries that gave no number at all.
fn empty(dashboard: &Dashboard, answers: &BTreeMap<u32, Vec<Asked>>) -> Vec<String> {
    let panels = dashboard
        .shown()
        .flat_map(|panel| answers[&panel.id].iter().map(move |asked| (panel, asked)));
    let empty = panels.filter(|(_, asked)| !asked.has_data());
    empty
        .map(|(panel, asked)| format!("{}: {}", panel.title, asked.expression))
        .collect()
}
