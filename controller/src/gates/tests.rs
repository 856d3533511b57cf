#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Redirect;
use axum::routing::{get, post};
use certwave_core::rollout::run::WaveCounts;
use rustls::RootCertStore;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

fn subject() -> Subject {
    Subject {
        namespace: "plant".to_owned(),
        rotation: "meters-7".to_owned(),
        fleet: "meters".to_owned(),
        wave: 1,
        wave_name: "early".to_owned(),
        counts: WaveCounts {
            members: 10,
            confirmed: 7,
            in_flight: 2,
            timed_out: 1,
            ..WaveCounts::default()
        },
    }
}

fn client() -> Client {
    Client::with_roots(RootCertStore::empty()).unwrap()
}

fn gate(source: GateSource) -> Gate {
    Gate {
        source,
        every: 60_000,
        failure_limit: 0,
        error_limit: 0,
    }
}

async fn ask(source: GateSource) -> Answer {
    let online = Online {
        before: Some(10),
        now: 9,
    };
    client().ask(&gate(source), &subject(), online).await
}

fn webhook_at(url: &str) -> GateSource {
    webhook_within(url, 30_000)
}

fn webhook_within(url: &str, timeout: Millis) -> GateSource {
    GateSource::Webhook {
        url: url.to_owned(),
        timeout,
    }
}

fn prometheus_at(url: &str, query: &str) -> GateSource {
    GateSource::Prometheus {
        url: url.to_owned(),
        query: query.to_owned(),
        above: None,
        below: Some("0.01".to_owned()),
    }
}

/// The text of an answer that must be unknown.
async fn unknown(source: GateSource) -> String {
    match ask(source).await {
        Answer::Unknown(detail) => detail,
        answer => panic!("{answer:?} is not unknown"),
    }
}

/// Serves `app` on loopback until the test's runtime ends; returns `127.0.0.1:<port>`.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address.to_string()
}

/// Answers one request with `head`, then `chunk` again and again for as long as the client listens, then nothing any more.
async fn raw(head: &'static str, chunk: Option<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // What comes before the request is no answer to it.
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        stream.write_all(head.as_bytes()).await.unwrap();
        if let Some(chunk) = chunk {
            while stream.write_all(&chunk).await.is_ok() {}
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    address.to_string()
}

async fn answering(status: StatusCode, body: &'static str) -> String {
    serve(Router::new().fallback(move || async move { (status, body) })).await
}

#[tokio::test]
async fn a_webhook_is_told_whom_it_is_asked_about_and_its_words_are_passed_on() {
    let (sender, mut told) = mpsc::unbounded_channel();
    let hook = post(move |uri: Uri, headers: HeaderMap, body: String| async move {
        sender.send((uri, headers, body)).unwrap();
        "{\"passed\": false, \"message\": \"3 meters are silent\"}"
    });
    let host = serve(Router::new().route("/gate", hook)).await;
    let answer = ask(webhook_at(&format!("http://{host}/gate?line=2"))).await;
    assert_eq!(answer, Answer::Bad(format!("{host}: 3 meters are silent")));

    let (uri, headers, body) = told.recv().await.unwrap();
    assert_eq!(uri.query(), Some("line=2"));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["user-agent"], concat!("certwave/", env!("CARGO_PKG_VERSION")));
    let expected = json!({
        "namespace": "plant", "rotation": "meters-7", "fleet": "meters",
        "wave": {"number": 2, "name": "early"},
        "devices": {
            "members": 10, "planned": 0, "offline": 0, "inFlight": 2, "confirmed": 7, "failed": 0, "rejected": 0,
            "rolledBack": 0, "timedOut": 1, "lost": 0, "reverting": 0, "reverted": 0, "unreverted": 0,
            "probationFailed": 0, "skipped": 0,
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

#[tokio::test]
async fn prometheus_is_asked_below_its_base_url() {
    let (sender, mut told) = mpsc::unbounded_channel();
    let api = post(move |uri: Uri, body: String| async move {
        sender.send((uri, body)).unwrap();
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.002"]}]}}"#
    });
    let host = serve(Router::new().route("/prometheus/api/v1/query", api)).await;
    let source = prometheus_at(&format!("http://{host}/prometheus/?tenant=a"), "sum(a) / sum(b + c)");
    assert_eq!(ask(source).await, Answer::Well(format!("{host}: 0.002 is below 0.01")));
    let (uri, body) = told.recv().await.unwrap();
    assert_eq!(uri.query(), Some("tenant=a"));
    assert_eq!(body, "query=sum%28a%29+%2F+sum%28b+%2B+c%29&timeout=10s");
}

#[tokio::test]
async fn devices_online_need_nobody_to_be_asked() {
    let answer = ask(GateSource::Online {
        min_percent_of_before: 95,
    })
    .await;
    assert!(matches!(answer, Answer::Bad(_)), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_is_down_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for source in [
        webhook_at(&format!("http://{address}")),
        prometheus_at(&format!("http://{address}"), "up"),
    ] {
        let detail = unknown(source).await;
        assert!(
            detail.contains("refused") && detail.contains(&address.to_string()),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn a_slow_server_is_unknown_in_time_wherever_it_stops() {
    for head in [
        "",
        "HTTP/1.1 200 OK\r\nContent-",
        "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"passed\":",
    ] {
        let host = raw(head, None).await;
        let detail = unknown(webhook_within(&format!("http://{host}"), 200)).await;
        assert!(detail.contains("no answer within 200 ms"), "{head:?}: {detail}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ] {
        let host = raw(head, Some(vec![b' '; 8192])).await;
        assert_cut_off(&unknown(webhook_at(&format!("http://{host}"))).await);
    }
    let host = answering(
        StatusCode::OK,
        Box::leak(" ".repeat(exchange::MAX_BODY + 1).into_boxed_str()),
    )
    .await;
    assert_cut_off(&unknown(prometheus_at(&format!("http://{host}"), "up")).await);
}

fn assert_cut_off(detail: &str) {
    assert!(detail.contains("more than 256 KiB"), "{detail}");
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let host = raw("HTTP/1.1 200 OK\r\n", Some(b"X-More: and more\r\n".repeat(100))).await;
    let detail = unknown(webhook_at(&format!("http://{host}"))).await;
    assert!(detail.contains("cannot be asked"), "{detail}");
}

#[tokio::test]
async fn whoever_does_not_speak_http_is_unknown() {
    let host = raw("SSH-2.0-OpenSSH_9.2\r\n", None).await;
    let detail = unknown(webhook_at(&format!("http://{host}"))).await;
    assert!(detail.contains("cannot be asked"), "{detail}");
}

#[tokio::test]
async fn an_answer_that_is_none_is_not_repeated() {
    for (status, body, words) in [
        (StatusCode::OK, "<html>s3cret</html>", "not JSON"),
        (StatusCode::OK, "{\"token\": \"s3cret\"}", "without"),
        (StatusCode::OK, "[\"s3cret\"]", "JSON that is not"),
        (StatusCode::INTERNAL_SERVER_ERROR, "s3cret", "500"),
        (StatusCode::CREATED, "{\"passed\": true}", "201"),
    ] {
        let host = answering(status, body).await;
        let detail = unknown(webhook_at(&format!("http://{host}"))).await;
        assert!(detail.contains(words) && !detail.contains("s3cret"), "{detail}");
        let detail = unknown(prometheus_at(&format!("http://{host}"), "up")).await;
        assert!(!detail.contains("s3cret"), "{detail}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let elsewhere = serve(Router::new().fallback(move || async move {
        count.fetch_add(1, Ordering::Relaxed);
        "{\"passed\": true}"
    }))
    .await;
    let target = format!("http://{elsewhere}/gate?token=s3cret");
    let own = serve(
        Router::new()
            .route("/away", post(async move || Redirect::temporary(&target)))
            .route("/here", post(async || Redirect::to("/there")))
            .route("/there", get(async || "{\"passed\": true}")),
    )
    .await;
    let away = unknown(webhook_at(&format!("http://{own}/away"))).await;
    assert!(
        away.contains(&format!("redirects to {elsewhere}")) && !away.contains("s3cret"),
        "{away}"
    );
    let here = unknown(webhook_at(&format!("http://{own}/here"))).await;
    assert!(here.contains("redirects, which is not followed"), "{here}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_url_that_cannot_be_asked_is_unknown_and_not_repeated() {
    for url in [
        "",
        "not a url",
        "gate",
        "/gate?token=s3cret",
        "ftp://127.0.0.1/s3cret",
        "file:///s3cret",
        "http://",
        "http://me:s3cret@127.0.0.1:1/",
    ] {
        for source in [webhook_at(url), prometheus_at(url, "up")] {
            let detail = unknown(source).await;
            assert!(detail.contains("URL") && !detail.contains("s3cret"), "{url}: {detail}");
        }
    }
    let down = unknown(webhook_at("http://127.0.0.1:1/hook?token=s3cret")).await;
    assert!(!down.contains("s3cret"), "{down}");
}

#[tokio::test]
async fn https_without_trusted_cas_says_what_is_missing() {
    let detail = unknown(webhook_at("https://127.0.0.1:1/")).await;
    assert!(detail.contains("SSL_CERT_FILE"), "{detail}");
}

#[test]
fn no_time_limit_is_longer_than_a_minute() {
    assert_eq!(limit(5_000), Duration::from_secs(5));
    assert_eq!(limit(Millis::MAX), Duration::from_mins(1));
    assert_eq!(limit(-1), Duration::ZERO);
}
