#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;

/// What an API server is asked.
enum Asked {
    /// For a page, by this query; answered with a code and a body.
    Page(String, oneshot::Sender<(u16, Value)>),
    /// To tell what happens.
    Watch(mpsc::UnboundedSender<Value>),
}

struct Server {
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Server {
    fn begin() -> (Self, Feed) {
        let (ask, asked) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (ask, query) = (ask.clone(), request.uri().query().unwrap_or_default().to_owned());
            async move {
                if query.contains("watch=") {
                    let (tell, told) = mpsc::unbounded_channel::<Value>();
                    ask.send(Asked::Watch(tell)).unwrap();
                    let lines = futures::stream::unfold(told, |mut told| async move {
                        let line = format!("{}\n", told.recv().await?);
                        Some((Ok(Frame::data(Bytes::from(line))), told))
                    });
                    return http::Response::builder().body(UnsyncBoxBody::new(StreamBody::new(lines)));
                }
                let (answer, answered) = oneshot::channel();
                ask.send(Asked::Page(query, answer)).unwrap();
                let (code, body) = answered.await.unwrap();
                let whole = Full::new(Bytes::from(body.to_string())).map_err(std::io::Error::other);
                http::Response::builder().status(code).body(UnsyncBoxBody::new(whole))
            }
        });
        let feed = Feed::new(&kube::Client::new(service, "default"), None);
        (Self { asked }, feed)
    }

    async fn page(&mut self) -> oneshot::Sender<(u16, Value)> {
        match self.asked.recv().await.unwrap() {
            Asked::Page(_, answer) => answer,
            Asked::Watch(_) => panic!("a page was expected"),
        }
    }

    async fn watch(&mut self) -> mpsc::UnboundedSender<Value> {
        match self.asked.recv().await.unwrap() {
            Asked::Watch(tell) => tell,
            Asked::Page(..) => panic!("a watch was expected"),
        }
    }

    /// One part that has seen `a`, of version 3, in a listing of version 10, and the watch.
    async fn with_one(&mut self, feed: &Feed) -> (mpsc::Receiver<Seen>, mpsc::UnboundedSender<Value>) {
        let mut first = feed.listen();
        let page = self.page().await;
        assert!(first.try_recv().is_err(), "nothing begins before the listing is there");
        page.send((200, listing(10, &[("a", 3)]))).unwrap();
        sees(&mut first, &["begins", "a 3", "complete"]).await;
        (first, self.watch().await)
    }
}

fn object(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificate",
        "metadata": { "name": name, "namespace": "plant", "resourceVersion": version.to_string() },
        "spec": { "deviceId": name, "fleetRef": { "name": "pumps" } },
    })
}

fn listing(version: u32, objects: &[(&str, u32)]) -> Value {
    let items: Vec<Value> = objects.iter().map(|(name, version)| object(name, *version)).collect();
    json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificateList",
        "metadata": { "resourceVersion": version.to_string() }, "items": items,
    })
}

fn event(kind: &str, name: &str, version: u32) -> Value {
    json!({ "type": kind, "object": object(name, version) })
}

/// That the API server has forgotten what is asked for.
fn expired() -> Value {
    json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410 })
}

async fn sees(part: &mut mpsc::Receiver<Seen>, expected: &[&str]) {
    for expected in expected {
        let seen = tokio::time::timeout(Duration::from_mins(1), part.recv()).await;
        let said = match seen.unwrap_or_else(|_| panic!("{expected} was not seen")).unwrap() {
            Seen::Begins => "begins".to_owned(),
            Seen::Complete => "complete".to_owned(),
            Seen::Is(object) => named(&object),
            Seen::Gone(object) => format!("no {}", named(&object)),
        };
        assert_eq!(said, *expected);
    }
}

fn named(object: &DeviceCertificate) -> String {
    let metadata = &object.metadata;
    format!(
        "{} {}",
        metadata.name.as_deref().unwrap(),
        metadata.resource_version.as_deref().unwrap()
    )
}

#[tokio::test(start_paused = true)]
async fn who_joins_is_listed_for_while_the_others_hear_what_happens() {
    let (mut server, feed) = Server::begin();
    let (mut first, watch) = server.with_one(&feed).await;
    let mut second = feed.listen();
    let page = server.page().await;
    for happens in [
        event("MODIFIED", "a", 11),
        event("DELETED", "b", 12),
        event("ADDED", "c", 13),
    ] {
        watch.send(happens).unwrap();
    }
    sees(&mut first, &["a 11", "no b 12", "c 13"]).await;
    page.send((200, listing(12, &[("a", 11)]))).unwrap();
    // Of what the watch told meanwhile only what the listing had not.
    sees(&mut second, &["begins", "a 11", "complete", "c 13"]).await;
    watch.send(event("DELETED", "a", 14)).unwrap();
    sees(&mut first, &["no a 14"]).await;
    sees(&mut second, &["no a 14"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_watch_tells_late_is_nothing_new_to_who_has_joined() {
    let (mut server, feed) = Server::begin();
    let (mut first, watch) = server.with_one(&feed).await;
    let mut second = feed.listen();
    server.page().await.send((200, listing(12, &[("a", 12)]))).unwrap();
    sees(&mut second, &["begins", "a 12", "complete"]).await;
    for happens in [
        event("DELETED", "a", 11),
        event("ADDED", "a", 12),
        event("MODIFIED", "a", 13),
    ] {
        watch.send(happens).unwrap();
    }
    sees(&mut first, &["no a 11", "a 12", "a 13"]).await;
    sees(&mut second, &["a 13"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_is_begun_again_and_nobody_else_waits_for_it() {
    let (mut server, feed) = Server::begin();
    let (mut first, watch) = server.with_one(&feed).await;
    let mut second = feed.listen();
    let mut begun = listing(11, &[("a", 3)]);
    begun["metadata"]["continue"] = json!("more");
    server.page().await.send((200, begun)).unwrap();
    server.page().await.send((410, expired())).unwrap();
    sees(&mut second, &["begins", "a 3"]).await;
    for version in 12..15 {
        watch.send(event("MODIFIED", "a", version)).unwrap();
        sees(&mut first, &[&format!("a {version}")]).await;
        let page = server.page().await;
        if version < 14 {
            page.send((503, json!({ "code": 503 }))).unwrap();
        } else {
            page.send((200, listing(14, &[("a", 14)]))).unwrap();
            sees(&mut second, &["begins", "a 14", "complete"]).await;
        }
    }
    watch.send(event("DELETED", "a", 15)).unwrap();
    sees(&mut first, &["no a 15"]).await;
    sees(&mut second, &["no a 15"]).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_watch_begins_anew_all_see_its_listing_and_versions_begin_with_it() {
    let (mut server, feed) = Server::begin();
    let (mut first, watch) = server.with_one(&feed).await;
    let mut second = feed.listen();
    server.page().await.send((200, listing(12, &[("a", 3)]))).unwrap();
    sees(&mut second, &["begins", "a 3", "complete"]).await;
    let mut third = feed.listen();
    let open = server.page().await;
    watch.send(json!({ "type": "ERROR", "object": expired() })).unwrap();
    // As after the API server's store was put back.
    server.page().await.send((200, listing(4, &[("a", 3)]))).unwrap();
    assert!(open.is_closed(), "nobody waits for that listing any more");
    let watch = server.watch().await;
    watch.send(event("MODIFIED", "a", 5)).unwrap();
    for part in [&mut first, &mut second, &mut third] {
        sees(part, &["begins", "a 3", "complete", "a 5"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_all_is_listed_has_the_next_listing() {
    let (mut server, feed) = Server::begin();
    let mut first = feed.listen();
    let page = server.page().await;
    let (mut second, mut third) = (feed.listen(), feed.listen());
    tokio::time::sleep(TOGETHER * 10).await;
    assert!(server.asked.is_empty(), "what is under way is not begun anew");
    page.send((200, listing(10, &[("a", 3)]))).unwrap();
    sees(&mut first, &["begins", "a 3", "complete"]).await;
    // In whichever order.
    let mut watch = None;
    for _ in 0..2 {
        match server.asked.recv().await.unwrap() {
            Asked::Watch(tell) => watch = Some(tell),
            Asked::Page(_, answer) => answer.send((200, listing(10, &[("a", 3)]))).unwrap(),
        }
    }
    let watch = watch.unwrap();
    for part in [&mut second, &mut third] {
        sees(part, &["begins", "a 3", "complete"]).await;
    }
    watch.send(event("DELETED", "a", 11)).unwrap();
    for part in [&mut first, &mut second, &mut third] {
        sees(part, &["no a 11"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_listed_to_its_end_for_who_has_gone() {
    let (mut server, feed) = Server::begin();
    let (mut first, watch) = server.with_one(&feed).await;
    let second = feed.listen();
    let page = server.page().await;
    drop(second);
    let mut begun = listing(11, &[("a", 3)]);
    begun["metadata"]["continue"] = json!("more");
    page.send((200, begun)).unwrap();
    watch.send(event("DELETED", "a", 12)).unwrap();
    sees(&mut first, &["no a 12"]).await;
    let _third = feed.listen();
    let Some(Asked::Page(query, _)) = server.asked.recv().await else {
        panic!("a page was expected")
    };
    assert!(
        !query.contains("continue="),
        "nobody wants to know how that went on: {query}"
    );
}
