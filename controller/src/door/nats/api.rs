//! What is asked over the system account, and the answers as far as they are needed (`server/events.go` and `monitor.go` of
//! nats-server 2.15).

use std::time::Duration;

use async_nats::{Client, RequestErrorKind, StatusCode, Subscriber};
use futures::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use crate::door::DoorError;

/// How long servers may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// A device has one session, or as many as whoever holds its key likes to open.
const MOST_SESSIONS: u32 = 1024;
/// A server that does not know a connection any more says so in these words.
const GONE: &str = "no such client";

/// A session, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Session {
    server: String,
    cid: u64,
}

/// By what sessions are found.
pub(super) enum Filter {
    /// The MQTT client id.
    ClientId(String),
    /// The user that the server has taken the client for.
    User(String),
}

#[derive(Deserialize)]
struct Answer<T> {
    server: Server,
    #[serde(default)]
    error: Option<ApiError>,
    #[serde(default = "none")]
    data: Option<T>,
}

const fn none<T>() -> Option<T> {
    None
}

#[derive(Deserialize)]
struct Server {
    id: String,
    #[serde(default)]
    name: String,
}

impl Server {
    /// Its name; of one without, its id.
    fn label(self) -> String {
        if self.name.is_empty() { self.id } else { self.name }
    }
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Ping {
    server: Server,
    statsz: Stats,
}

#[derive(Deserialize)]
struct Stats {
    /// Left out by a server that stands alone.
    #[serde(default = "one")]
    active_servers: usize,
}

const fn one() -> usize {
    1
}

#[derive(Deserialize)]
struct Connections {
    /// `null` where there are none.
    connections: Option<Vec<Connection>>,
}

#[derive(Deserialize)]
struct Connection {
    cid: u64,
}

/// The names of the servers that are alive: as many have to answer as the first one to do so knows of.
pub(super) async fn servers(client: &Client) -> Result<Vec<String>, DoorError> {
    let mut answers = ask_all(client, "$SYS.REQ.SERVER.PING", String::new()).await?;
    let (mut names, mut wanted) = (Vec::new(), 1);
    while names.len() < wanted {
        let ping: Ping = answers.next().await?;
        wanted = wanted.max(ping.statsz.active_servers);
        names.push(ping.server.label());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Answers of all servers to one question, within a time.
struct Answers {
    subscriber: Subscriber,
    deadline: Instant,
}

async fn ask_all(client: &Client, subject: &'static str, body: String) -> Result<Answers, DoorError> {
    let inbox = client.new_inbox();
    let subscriber = client.subscribe(inbox.clone()).await.map_err(broken)?;
    client
        .publish_with_reply(subject, inbox, body.into())
        .await
        .map_err(broken)?;
    Ok(Answers {
        subscriber,
        deadline: Instant::now() + ANSWER,
    })
}

impl Answers {
    async fn next<T: DeserializeOwned>(&mut self) -> Result<T, DoorError> {
        let next = tokio::time::timeout_at(self.deadline, self.subscriber.next()).await;
        let message = next
            .map_err(|_| DoorError::Timeout(ANSWER))?
            .ok_or_else(|| DoorError::Unreachable("the connection ended".to_owned()))?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(not_the_system_account());
        }
        read(&message.payload)
    }
}

/// The open sessions that the filter fits, on all of so many servers.
pub(super) async fn sessions(client: &Client, filter: &Filter, servers: usize) -> Result<Vec<Session>, DoorError> {
    let body = match filter {
        Filter::ClientId(id) => json!({ "mqtt_client": id, "limit": MOST_SESSIONS }),
        Filter::User(user) => json!({ "user": user, "auth": true, "limit": MOST_SESSIONS }),
    };
    let mut answers = ask_all(client, "$SYS.REQ.SERVER.PING.CONNZ", body.to_string()).await?;
    let mut sessions = Vec::new();
    for _ in 0..servers {
        let answer: Answer<Connections> = answers.next().await?;
        content(answer.error, &answer.server)?;
        let connections = answer.data.and_then(|data| data.connections).unwrap_or_default();
        sessions.extend(connections.into_iter().map(|connection| Session {
            server: answer.server.id.clone(),
            cid: connection.cid,
        }));
    }
    Ok(sessions)
}

/// Ends a session. One that has ended by itself is fine.
pub(super) async fn close(client: &Client, session: &Session) -> Result<(), DoorError> {
    let subject = format!("$SYS.REQ.SERVER.{}.KICK", session.server);
    let payload = request(client, subject, json!({ "cid": session.cid }).to_string()).await?;
    let answer: Answer<serde_json::Value> = read(&payload)?;
    match answer.error {
        Some(error) if error.description.contains(GONE) => Ok(()),
        error => content(error, &answer.server),
    }
}

async fn request(client: &Client, subject: String, body: String) -> Result<Vec<u8>, DoorError> {
    let answer = tokio::time::timeout(ANSWER, client.request(subject, body.into())).await;
    let answer = answer.map_err(|_| DoorError::Timeout(ANSWER))?;
    answer
        .map(|message| message.payload.to_vec())
        .map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => not_the_system_account(),
            RequestErrorKind::TimedOut => DoorError::Timeout(ANSWER),
            _ => DoorError::Unreachable(error.to_string()),
        })
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DoorError> {
    serde_json::from_slice(payload)
        .map_err(|error| DoorError::Refused(format!("the answer of the NATS server cannot be read: {error}")))
}

fn content(error: Option<ApiError>, server: &Server) -> Result<(), DoorError> {
    match error {
        None => Ok(()),
        Some(error) => Err(DoorError::Refused(format!(
            "the NATS server {} says: {} {}",
            server.name, error.code, error.description
        ))),
    }
}

/// Another account may ask, but nobody listens there.
fn not_the_system_account() -> DoorError {
    DoorError::Refused(
        "nobody answers to $SYS requests: the login in the Secret of spec.nats must be a user of the server's system account"
            .to_owned(),
    )
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn broken(error: impl std::error::Error) -> DoorError {
    DoorError::Unreachable(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_read_as_the_server_writes_them() {
        let found: Answer<Connections> = read(
            br#"{"server":{"name":"n1","id":"NA"},"data":{"server_id":"NA","num_connections":1,"connections":[{"cid":7,"mqtt_client":"d1"}]}}"#,
        )
        .unwrap();
        assert_eq!(found.data.unwrap().connections.unwrap()[0].cid, 7);
        let none: Answer<Connections> =
            read(br#"{"server":{"name":"n1","id":"NA"},"data":{"connections":null}}"#).unwrap();
        assert!(none.data.unwrap().connections.is_none());
        let alone: Ping = read(br#"{"server":{"id":"NA"},"statsz":{"cores":2}}"#).unwrap();
        assert_eq!(alone.statsz.active_servers, 1);
    }

    #[test]
    fn what_a_server_refuses_is_told_with_its_name() {
        let answer: Answer<Connections> =
            read(br#"{"server":{"name":"n1","id":"NA"},"error":{"code":400,"description":"bad filter"}}"#).unwrap();
        let said = content(answer.error, &answer.server).unwrap_err();
        assert_eq!(
            said,
            DoorError::Refused("the NATS server n1 says: 400 bad filter".to_owned())
        );
        assert_eq!(read::<Ping>(b"hello").err().unwrap().category(), "refused");
    }
}
