//! Against answers in the shapes that EMQX's API reference (5.x, `Clients` and `Banned`) documents: no EMQX is at hand here.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::Mutex as Std;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use rustls::RootCertStore;
use tokio::net::TcpListener;

use super::*;

type Calls = Arc<Std<Vec<(Method, String, HeaderMap, Value)>>>;

const NOT_FOUND: &str = r#"{"code":"CLIENTID_NOT_FOUND","message":"Client ID not found"}"#;
const BANNED: &str = r#"{"as":"clientid","who":"pump-17","by":"certwave","reason":"","at":"2026-01-01T00:00:00Z","until":"2026-01-01T00:15:00Z"}"#;
const EXISTS: &str = r#"{"code":"ALREADY_EXISTS","message":"already exists"}"#;

/// An API that answers so to the ban and so to the kick.
struct Api {
    ban: (u16, &'static str),
    kick: (u16, &'static str),
}

impl Api {
    const WELL: Self = Self {
        ban: (200, BANNED),
        kick: (204, ""),
    };

    async fn serve(self) -> (String, Calls) {
        let calls = Calls::default();
        let kept = Arc::clone(&calls);
        let app = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: String| {
            let (status, text) = if method == Method::POST { self.ban } else { self.kick };
            let body = serde_json::from_str(&body).unwrap_or_default();
            kept.lock()
                .unwrap()
                .push((method, uri.path().to_owned(), headers, body));
            async move { (StatusCode::from_u16(status).unwrap(), text) }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        (format!("http://{address}"), calls)
    }
}

fn door(url: &str, ban: u64) -> Emqx {
    let settings = Settings {
        url: url.to_owned(),
        key: "certwave".to_owned(),
        secret: Hidden::from("s3cret".to_owned()),
        ban: Duration::from_secs(ban),
        version: String::new(),
    };
    Emqx::new(settings, Ok(Client::with_roots(RootCertStore::empty()).unwrap()), 2)
}

async fn kick(api: Api, ban: u64) -> Result<Kicked, DoorError> {
    let (url, _) = api.serve().await;
    door(&url, ban).kick(&"pump-17".parse().unwrap()).await
}

#[tokio::test]
async fn a_device_is_banned_before_its_session_is_closed() {
    let (url, calls) = Api::WELL.serve().await;
    let device = "pump-17".parse().unwrap();
    assert_eq!(door(&url, 900).kick(&device).await, Ok(Kicked::Closed));
    let calls = calls.lock().unwrap();
    let [(post, banned, headers, body), (delete, client, ..)] = calls.as_slice() else {
        unreachable!("{calls:?}");
    };
    assert_eq!((post, banned.as_str()), (&Method::POST, "/api/v5/banned"));
    assert_eq!((delete, client.as_str()), (&Method::DELETE, "/api/v5/clients/pump-17"));
    assert_eq!(headers["authorization"], "Basic Y2VydHdhdmU6czNjcmV0");
    assert_eq!((&body["as"], &body["who"]), (&json!("clientid"), &json!("pump-17")));
    let until: Timestamp = body["until"].as_str().unwrap().parse().unwrap();
    let left = until.as_second() - Timestamp::now().as_second();
    assert!((890..=900).contains(&left), "{left}");
}

#[tokio::test]
async fn a_device_without_a_session_is_no_failure() {
    let api = Api {
        kick: (404, NOT_FOUND),
        ..Api::WELL
    };
    assert_eq!(kick(api, 900).await, Ok(Kicked::None));
}

/// An API that keeps bans as EMQX does: one for each client, which no other call changes.
async fn with_ban(ban: Value) -> (String, Arc<Std<Vec<Value>>>) {
    let bans = Arc::new(Std::new(vec![ban]));
    let kept = Arc::clone(&bans);
    let app = Router::new().fallback(move |method: Method, uri: Uri, body: String| {
        let mut bans = kept.lock().unwrap();
        let answer = match (method, uri.path()) {
            (Method::GET, "/api/v5/banned") => (200, json!({"data": *bans, "meta": {}}).to_string()),
            (Method::POST, "/api/v5/banned") if !bans.is_empty() => (400, EXISTS.to_owned()),
            (Method::POST, "/api/v5/banned") => {
                bans.push(serde_json::from_str(&body).unwrap());
                (200, BANNED.to_owned())
            }
            (Method::DELETE, "/api/v5/banned/clientid/pump-17") => {
                bans.clear();
                (204, String::new())
            }
            (Method::DELETE, "/api/v5/clients/pump-17") => (404, NOT_FOUND.to_owned()),
            other => unreachable!("{other:?}"),
        };
        async move { (StatusCode::from_u16(answer.0).unwrap(), answer.1) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), bans)
}

#[tokio::test]
async fn the_ban_of_an_earlier_hold_is_made_anew_and_a_persons_stays_if_it_lasts() {
    let after = |seconds: i64| {
        Timestamp::from_second(Timestamp::now().as_second() + seconds)
            .unwrap()
            .to_string()
    };
    for (by, until, stays) in [
        ("certwave", after(10), false),
        ("certwave", after(5000), false),
        ("eve@example.com", after(10), false),
        ("eve@example.com", after(5000), true),
        ("eve@example.com", "infinity".to_owned(), true),
    ] {
        let ban = json!({"as": "clientid", "who": "pump-17", "by": by, "reason": "", "until": until});
        let (url, bans) = with_ban(ban.clone()).await;
        assert_eq!(
            door(&url, 900).kick(&"pump-17".parse().unwrap()).await,
            Ok(Kicked::None)
        );
        let bans = bans.lock().unwrap();
        let [now] = bans.as_slice() else {
            unreachable!("{bans:?}")
        };
        assert_eq!(*now == ban, stays, "{now}");
        if !stays {
            let end: Timestamp = now["until"].as_str().unwrap().parse().unwrap();
            let left = end.as_second() - Timestamp::now().as_second();
            assert!((890..=900).contains(&left), "{left}");
        }
    }
}

#[tokio::test]
async fn a_refused_key_is_told_apart_from_a_server_in_trouble() {
    let key = r#"{"code":"BAD_API_KEY_OR_SECRET","message":"s3cret"}"#;
    for (status, body, category) in [
        (401, key, "refused"),
        (403, r#"{"code":"UNAUTHORIZED_ROLE"}"#, "refused"),
        (429, "", "unreachable"),
        (500, r#"{"code":"INTERNAL_ERROR"}"#, "unreachable"),
        (503, "<html>", "unreachable"),
        // Another service: never taken for "no such session".
        (404, "<html>", "refused"),
        (404, r#"{"code":"NOT_FOUND"}"#, "refused"),
        (200, "", ""),
    ] {
        let api = Api {
            kick: (status, body),
            ..Api::WELL
        };
        let said = kick(api, 900)
            .await
            .map_err(|error| (error.category(), error.to_string()));
        let found = said.as_ref().map_or_else(|(category, _)| *category, |_| "");
        assert_eq!(found, category, "{status} {said:?}");
        if let Err((_, text)) = said {
            assert!(!text.contains("s3cret") && text.contains("127.0.0.1"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_device_that_cannot_be_banned_is_not_reported_as_out() {
    let api = Api {
        ban: (400, r#"{"code":"BAD_REQUEST"}"#),
        ..Api::WELL
    };
    assert_eq!(kick(api, 900).await.unwrap_err().category(), "refused");
}

#[tokio::test]
async fn a_node_that_does_not_run_is_told_of() {
    for (nodes, well) in [
        (
            r#"[{"node":"emqx@a","node_status":"running"},{"node":"emqx@b","node_status":"running"}]"#,
            true,
        ),
        (
            r#"[{"node":"emqx@a","node_status":"running"},{"node":"emqx@b","node_status":"stopped"}]"#,
            false,
        ),
        ("<html>", false),
    ] {
        let api = Api {
            kick: (200, nodes),
            ..Api::WELL
        };
        let (url, calls) = api.serve().await;
        let door = door(&url, 900);
        let loaded = door.loaded(&BTreeMap::new()).await;
        assert_eq!(loaded.is_ok(), well, "{nodes}: {loaded:?}");
        assert_eq!(calls.lock().unwrap()[0].1, "/api/v5/nodes");
        if let Ok(loaded) = loaded {
            let names: Vec<&str> = loaded.iter().map(|node| node.name.as_str()).collect();
            assert_eq!(names, ["emqx@a", "emqx@b"]);
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let error = door(&url, 900).kick(&"pump-17".parse().unwrap()).await.unwrap_err();
    assert_eq!(error, DoorError::Timeout(ANSWER));
    drop(listener);
    let error = door(&url, 900).kick(&"pump-17".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.category(), "unreachable", "{error}");
}
