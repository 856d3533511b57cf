//! A server that is asked whether all is well.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A webhook of the test's own, on loopback.
pub(crate) struct Webhook {
    address: SocketAddr,
    passed: Arc<Mutex<bool>>,
    asked: Arc<Mutex<Vec<String>>>,
    server: Option<JoinHandle<()>>,
}

impl Webhook {
    /// One that is down; it has an address all the same.
    pub(crate) async fn down() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            passed: Arc::new(Mutex::new(true)),
            asked: Arc::default(),
            server: None,
        }
    }

    /// One that says that all is well.
    pub(crate) async fn up() -> Self {
        let mut webhook = Self::down().await;
        webhook.rise().await;
        webhook
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/gate", self.address)
    }

    /// What it says from now on.
    pub(crate) fn say(&self, passed: bool) {
        *self.passed.lock().unwrap() = passed;
    }

    /// What it was asked so far, HTTP and all.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// It answers from now on.
    pub(crate) async fn rise(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (passed, asked) = (Arc::clone(&self.passed), Arc::clone(&self.asked));
        self.server = Some(tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 65_536];
                let read = stream.read(&mut request).await.unwrap_or(0);
                asked
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&request[..read]).into_owned());
                let body = if *passed.lock().unwrap() {
                    r#"{"passed": true}"#
                } else {
                    r#"{"passed": false, "message": "error rate 7 %"}"#
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }));
    }

    /// Nobody answers any more.
    pub(crate) fn fall(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.fall();
    }
}
