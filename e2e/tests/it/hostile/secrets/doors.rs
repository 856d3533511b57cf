//! The controller's logins to the doors of brokers, and what it tells a collector of traces.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::routing::post;
use certwave_crds::{Broker, DeviceCertificate, RotationPhase};
use certwave_e2e::identity::Identity;
use certwave_e2e::nats::{self, Nats};
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::wait_for;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Needle, found, is_there, needles, written};
use crate::faults::world::{SOON, World, patch};
use crate::shared;

/// Of the key to EMQX's REST API.
const API_SECRET: &str = "Emqx-Hunter2-Hunter2-Hunter2-Hunter2";
/// What EMQX says of a client that is not connected.
const NOT_FOUND: &str = r#"{"code":"CLIENTID_NOT_FOUND","message":"Client ID not found"}"#;

type Heard = Arc<Mutex<Vec<u8>>>;

/// Listens on loopback until the test ends; says where.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// Keeps all traces that it is sent, as they came.
fn collector(heard: &Heard) -> Router {
    let heard = Arc::clone(heard);
    let keep = move |body: Bytes| {
        heard.lock().unwrap().extend_from_slice(&body);
        async {}
    };
    Router::new().route("/v1/traces", post(keep))
}

/// In the place of EMQX's REST API, which does not take the key the first time, and has no sessions. Keeps the logins that it is shown.
fn management(logins: &Heard) -> Router {
    let logins = Arc::clone(logins);
    Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap| {
        let mut logins = logins.lock().unwrap();
        let first = logins.is_empty();
        logins.extend_from_slice(headers["authorization"].as_bytes());
        let answer = match (first, method, uri.path()) {
            (true, ..) => (StatusCode::UNAUTHORIZED, r#"{"code":"BAD_API_KEY_OR_SECRET"}"#),
            (_, Method::DELETE, _) => (StatusCode::NOT_FOUND, NOT_FOUND),
            (_, Method::GET, _) => (StatusCode::OK, "[]"),
            _ => (StatusCode::OK, "{}"),
        };
        async move { answer }
    })
}

async fn login(stack: &Stack, name: &str, data: &Value) {
    let secret = json!({ "metadata": { "name": name }, "stringData": data });
    let secret: Secret = serde_json::from_value(secret).unwrap();
    let created = stack.objects().create(&PostParams::default(), &secret).await;
    created.unwrap();
}

/// Revokes a device, and waits until the broker's door says that it has no session any more.
async fn shut_out(world: &World, id: &str) {
    let revocation = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, id, &revocation).await;
    let devices = world.stack.objects::<DeviceCertificate>();
    let closed = wait_for("the door to answer", SOON, || async {
        let status = devices.get(id).await?.status.and_then(|status| status.revocation);
        let status = status.context("no revocation is shown")?;
        ensure!(status.session_closed_at.is_some(), "{status:?}");
        Ok(())
    });
    world.told(closed.await);
}

/// A NATS server that the broker's own certificate is for.
async fn nats_of(stack: &Stack) -> Nats {
    let secrets = stack.secrets().await.unwrap();
    let server = secrets
        .into_iter()
        .find(|secret| secret.metadata.name.as_deref() == Some(objects::SERVER_SECRET));
    let data = server.unwrap().data.unwrap();
    let pem = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let identity = Identity {
        certificate: pem("tls.crt"),
        key: pem("tls.key"),
    };
    Nats::run(&pem("ca.crt"), &identity).await.unwrap()
}

// The last traces come while the controller ends, which this thread waits for.
#[tokio::test(flavor = "multi_thread")]
async fn no_login_to_a_broker_is_ever_written_where_somebody_else_reads_and_no_secret_is_traced() {
    let (traced, logins) = (Heard::default(), Heard::default());
    let mut stack = Stack::on(shared::api().await, "secrets-door").await.unwrap();
    stack.log("trace");
    stack.trace_to(serve(collector(&traced)).await);
    let mut world = World::on(stack, 3).await;
    let ids = world.enrol("m", 3, &[]).await;
    world.rotate("all", &json!({}));
    assert_eq!(world.ended("all").await.phase, Some(RotationPhase::Complete));

    login(
        &world.stack,
        "emqx",
        &json!({ "key": "certwave", "secret": API_SECRET }),
    )
    .await;
    let url = serve(management(&logins)).await;
    let emqx = json!({ "adapter": "Emqx", "emqx": { "url": url, "secretRef": { "name": "emqx" } } });
    patch::<Broker>(&world.stack, objects::BROKER, &json!({ "spec": emqx })).await;
    shut_out(&world, &ids[1]).await;

    let nats = nats_of(&world.stack).await;
    let password = json!({ "username": "certwave", "password": nats::PASSWORD });
    login(&world.stack, "nats", &password).await;
    let nats =
        json!({ "adapter": "Nats", "emqx": null, "nats": { "url": nats.url(), "secretRef": { "name": "nats" } } });
    patch::<Broker>(&world.stack, objects::BROKER, &json!({ "spec": nats })).await;
    shut_out(&world, &ids[2]).await;

    let mut needles = needles(&world.stack).await;
    needles.push(Needle::of("the API key's secret".to_owned(), API_SECRET.as_bytes()));
    needles.push(Needle::of("NATS's password".to_owned(), nats::PASSWORD.as_bytes()));
    assert!(
        found(&logins.lock().unwrap(), &needles).is_some(),
        "it was sent, and would be found"
    );
    let mut written = written(&mut world, &ids[0]).await;
    written.insert("traces".to_owned(), traced.lock().unwrap().clone());
    is_there(&written, &["traces"]);
    let log = String::from_utf8_lossy(&written["certwave.log"]);
    assert!(
        log.contains("TRACE") && log.contains("does not take the API key"),
        "everything was logged, and what fails is told"
    );
    for (place, text) in &written {
        assert_eq!(found(text, &needles), None, "it is in {place}");
    }
}
