//! The same over HTTP, on a socket: what caches are told, and what hostile clients cost.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use certwave_core::revocation::Standing;
use certwave_pki::ocsp::{Failure, HashAlgorithm, MAX_REQUEST_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::world::{NOW, World, request, with_nonce};
use crate::ocsp::http::{beside, seconds};
use crate::serve::serve;

struct Site {
    world: World,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Site {
    async fn new() -> Self {
        let world = World::unseen();
        // HTTP goes by the real clock.
        world.look(seconds()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rest = Router::new().route("/healthz", axum::routing::get(|| async { "ok\n" }));
        let task = tokio::spawn(serve(listener, beside(world.responder.clone(), rest)));
        Self { world, address, task }
    }

    async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // Whoever refuses may stop reading.
        let _ = stream.write_all(bytes).await;
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        Answer {
            status: head[9..12].parse().unwrap(),
            body: all[end + 4..].to_vec(),
            head: head.to_lowercase(),
        }
    }

    async fn get(&self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").as_bytes())
            .await
    }

    async fn post(&self, path: &str, kind: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }
}

const KIND: &str = "application/ocsp-request";

#[tokio::test]
async fn get_and_post_say_the_same_however_the_request_is_encoded() {
    let site = Site::new().await;
    site.world.source.set(&site.world.ca, 1, Standing::Good);
    let id = site.world.ca.key_id().to_string();
    let der = request(&[site.world.name(HashAlgorithm::Sha256, 1)]);
    let plain = BASE64_STANDARD.encode(&der);
    let escaped = plain.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D");
    let by_post = site.post(&format!("/ocsp/{id}"), KIND, &der).await;
    assert_eq!(by_post.status, 200);
    assert_eq!(by_post.header("content-type"), Some("application/ocsp-response"));
    for path in [
        format!("/ocsp/{id}/{plain}"),
        format!("/ocsp/{id}/{escaped}"),
        format!("/ocsp/{id}//{plain}"),
        format!("/ocsp/{plain}"),
    ] {
        assert_eq!(site.get(&path, "").await.body, by_post.body, "{path}");
    }
    assert_eq!(site.post("/ocsp", KIND, &der).await.body, by_post.body);
    assert_eq!(site.get("/healthz", "").await.body, b"ok\n");
}

#[tokio::test]
async fn caches_may_keep_what_fits_all_for_a_short_while_and_nothing_else() {
    let site = Site::new().await;
    site.world.source.set(&site.world.ca, 1, Standing::Good);
    let name = site.world.name(HashAlgorithm::Sha256, 1);
    let path = format!("/ocsp/{}", BASE64_STANDARD.encode(request(std::slice::from_ref(&name))));
    let answer = site.get(&path, "").await;
    assert_eq!(
        answer.header("cache-control"),
        Some("max-age=10, public, no-transform, must-revalidate")
    );
    assert!(answer.header("expires").is_some() && answer.header("last-modified").is_some());
    let tag = answer.header("etag").unwrap();
    assert_eq!(tag.len(), 66);
    let again = site.get(&path, &format!("If-None-Match: \"x\", {tag}\r\n")).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), Some(tag));
    let fresh = with_nonce(&[name], &[1; 16]);
    for (asked, what) in [(fresh.as_slice(), "a nonce"), (b"nonsense", "a failure")] {
        let answer = site.post("/ocsp", KIND, asked).await;
        assert_eq!(answer.status, 200, "{what}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    }
}

#[tokio::test]
async fn what_is_malformed_too_long_or_of_another_kind_is_refused() {
    let site = Site::new().await;
    let malformed = Failure::MalformedRequest.to_der();
    for path in ["/ocsp/MEo", "/ocsp/%zz", "/ocsp/"] {
        assert_eq!(site.get(path, "").await.body, malformed, "{path}");
    }
    assert_eq!(
        site.post("/ocsp", KIND, &[0x30; MAX_REQUEST_BYTES]).await.body,
        malformed
    );
    let nonce = |length| with_nonce(&[site.world.name(HashAlgorithm::Sha1, 1)], &vec![1; length]);
    assert_eq!(site.post("/ocsp", KIND, &nonce(129)).await.body, malformed);
    assert_eq!(site.post("/ocsp", KIND, &nonce(0)).await.body, malformed);
    let status = async |answer: Answer| answer.status;
    assert_eq!(
        status(site.post("/ocsp", KIND, &[0; MAX_REQUEST_BYTES + 1]).await).await,
        413
    );
    let chunked = "POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\n";
    let chunked = [chunked.as_bytes(), &[b'0'; 0x4000], b"\r\n0\r\n\r\n"].concat();
    assert_eq!(status(site.raw(&chunked).await).await, 413);
    assert_eq!(
        status(site.get(&format!("/ocsp/{}", "M".repeat(5000)), "").await).await,
        414
    );
    assert_eq!(
        status(site.get(&format!("/ocsp/{}", "M".repeat(60_000)), "").await).await,
        431
    );
    assert_eq!(status(site.post("/ocsp", "text/plain", b"x").await).await, 415);
    assert_eq!(
        status(
            site.raw(b"DELETE /ocsp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await
        )
        .await,
        405
    );
    assert_eq!(status(site.get("/other", "").await).await, 404);
}

#[tokio::test]
async fn those_who_begin_and_never_end_hold_nobody_up() {
    let site = Site::new().await;
    site.world.source.set(&site.world.ca, 1, Standing::Good);
    let path = format!(
        "/ocsp/{}",
        BASE64_STANDARD.encode(request(&[site.world.name(HashAlgorithm::Sha256, 1)]))
    );
    let mut slow = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        let begun: &[u8] = match n % 3 {
            0 => b"GET /ocsp/M",
            1 => b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 80\r\n\r\n0",
            _ => b"",
        };
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(site.get(&path, "").await.status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // A body that does not come is given up, and so is a head.
    let deadline = Duration::from_secs(20);
    for (place, code) in [(1, &b"HTTP/1.1 408"[..]), (0, b""), (2, b"")] {
        let mut answer = Vec::new();
        let read = slow[place].read_to_end(&mut answer);
        tokio::time::timeout(deadline, read).await.unwrap().unwrap();
        assert!(answer.starts_with(code), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn the_date_of_the_tests_lies_within_the_signers_life() {
    // What the others rely on.
    let world = World::new().await;
    assert!((NOW - 3600..world.signer_not_after()).contains(&seconds()));
}
