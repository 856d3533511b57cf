//! A bare MQTT 3.1.1 client (OASIS MQTT 3.1.1), for tests that must say on the wire what a proper client would not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::identity::Identity;

const ANSWER: Duration = Duration::from_secs(5);
/// By then a refusal has usually come.
const ALERT: Duration = Duration::from_millis(50);
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

/// One connection. It ends without DISCONNECT on drop, as a cut line does.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    next_id: u16,
    /// Messages that came while something else was awaited.
    received: Vec<Message>,
}

/// A PUBLISH that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Connection {
    /// Connects with a clean session as `client_id`, trusting `server_ca` (PEM), with or without a client certificate.
    ///
    /// # Errors
    /// When TLS fails, the broker closes the connection, or its CONNACK refuses.
    pub async fn open(
        address: SocketAddr,
        server_ca: &str,
        identity: Option<&Identity>,
        client_id: &str,
    ) -> Result<Self> {
        Self::open_with_will(address, server_ca, identity, client_id, None).await
    }

    /// The same with a last will (`QoS` 1, not retained), which the broker publishes when the connection is cut.
    ///
    /// # Errors
    /// See [`Connection::open`].
    pub async fn open_with_will(
        address: SocketAddr,
        server_ca: &str,
        identity: Option<&Identity>,
        client_id: &str,
        will: Option<&Message>,
    ) -> Result<Self> {
        tokio::time::timeout(ANSWER, Self::handshake(address, server_ca, identity, client_id, will))
            .await
            .context("the broker does not answer")?
    }

    async fn handshake(
        address: SocketAddr,
        ca: &str,
        identity: Option<&Identity>,
        client_id: &str,
        will: Option<&Message>,
    ) -> Result<Self> {
        let connector = TlsConnector::from(Arc::new(tls(ca, identity)?));
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = connector.connect(name, stream).await.context("TLS handshake")?;
        let mut connection = Self {
            stream,
            next_id: 1,
            received: Vec::new(),
        };
        // Protocol name and level 4; flags: clean session, will; no keep-alive, as nobody says anything while a test waits.
        let mut body = b"\x00\x04MQTT\x04".to_vec();
        body.extend([if will.is_some() { 0x0e } else { 0x02 }, 0, 0]);
        push_string(&mut body, client_id)?;
        if let Some(will) = will {
            push_string(&mut body, &will.topic)?;
            body.extend(u16::try_from(will.payload.len())?.to_be_bytes());
            body.extend(&will.payload);
        }
        connection.write(0x10, &body).await?;
        let (kind, body) = connection.read().await.context("no CONNACK")?;
        match (kind, body.as_slice()) {
            (CONNACK, [_, 0]) => Ok(connection),
            (CONNACK, [_, code]) => bail!("the broker refuses the connection (code {code})"),
            (kind, _) => bail!("packet {kind:#x} in place of CONNACK"),
        }
    }

    /// Publishes with `QoS` 1 and waits for PUBACK. (A broker acknowledges also what its ACL then drops.)
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> Result<()> {
        let mut body = Vec::new();
        push_string(&mut body, topic)?;
        body.extend(self.take_id().to_be_bytes());
        body.extend(payload);
        self.write(PUBLISH | 0x02 | u8::from(retain), &body).await?;
        self.answer(PUBACK).await.map(drop)
    }

    /// Subscribes with `QoS` 1; `true` when the broker grants it.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn subscribe(&mut self, filter: &str) -> Result<bool> {
        let mut body = self.take_id().to_be_bytes().to_vec();
        push_string(&mut body, filter)?;
        body.push(1);
        self.write(0x82, &body).await?;
        let answer = self.answer(SUBACK).await?;
        Ok(answer.last().is_some_and(|code| *code < 0x80))
    }

    /// The next message, or `None` when none comes within `deadline`.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn next(&mut self, deadline: Duration) -> Result<Option<Message>> {
        if !self.received.is_empty() {
            return Ok(Some(self.received.remove(0)));
        }
        let next = async {
            loop {
                let (kind, body) = self.read().await?;
                if let Some(message) = message(kind, &body)? {
                    return Ok::<_, anyhow::Error>(message);
                }
            }
        };
        match tokio::time::timeout(deadline, next).await {
            Ok(message) => message.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn answer(&mut self, awaited: u8) -> Result<Vec<u8>> {
        let answer = async {
            loop {
                let (kind, body) = self.read().await?;
                if kind & 0xf0 == awaited {
                    return Ok::<_, anyhow::Error>(body);
                }
                if let Some(message) = message(kind, &body)? {
                    self.received.push(message);
                }
            }
        };
        tokio::time::timeout(ANSWER, answer)
            .await
            .context("the broker does not answer")?
    }

    fn take_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }

    async fn write(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let mut packet = vec![kind];
        let mut left = body.len();
        loop {
            let low = u8::try_from(left % 128)?;
            left /= 128;
            packet.push(if left > 0 { low | 0x80 } else { low });
            if left == 0 {
                break;
            }
        }
        packet.extend(body);
        self.stream.write_all(&packet).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        let kind = self.stream.read_u8().await?;
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((kind, body))
    }
}

/// Whether the listener refuses this certificate at the handshake. It asks for no session, so that it takes none over.
///
/// # Errors
/// When nobody listens.
pub async fn is_refused(address: SocketAddr, server_ca: &str, identity: &Identity) -> Result<bool> {
    let connector = TlsConnector::from(Arc::new(tls(server_ca, Some(identity))?));
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let by_tls = |error: &std::io::Error| error.kind() == std::io::ErrorKind::InvalidData;
    let mut stream = match connector.connect(name, stream).await {
        Ok(stream) => stream,
        Err(error) => return Ok(by_tls(&error)),
    };
    // With TLS 1.3 the client is through before the server has looked at its certificate. What is written to a connection that
    // is closed already may cost the alert, so it is given a moment first.
    let mut byte = [0];
    if let Ok(read) = tokio::time::timeout(ALERT, stream.read(&mut byte)).await {
        return Ok(read.is_err_and(|error| by_tls(&error)));
    }
    // PINGREQ before CONNECT: whoever hears it hangs up.
    if stream.write_all(&[0xc0, 0]).await.is_err() || stream.flush().await.is_err() {
        return Ok(false);
    }
    let read = tokio::time::timeout(ANSWER, stream.read(&mut byte)).await;
    Ok(read.is_ok_and(|read| read.is_err_and(|error| by_tls(&error))))
}

fn message(kind: u8, body: &[u8]) -> Result<Option<Message>> {
    if kind & 0xf0 != PUBLISH {
        return Ok(None);
    }
    let (length, rest) = body.split_first_chunk::<2>().context("a PUBLISH without a topic")?;
    let length = usize::from(u16::from_be_bytes(*length));
    let topic = String::from_utf8_lossy(rest.get(..length).context("a short PUBLISH")?).into_owned();
    let identifier = if kind & 0x06 == 0 { 0 } else { 2 };
    let payload = rest.get(length + identifier..).context("a short PUBLISH")?.to_vec();
    Ok(Some(Message { topic, payload }))
}

fn push_string(body: &mut Vec<u8>, text: &str) -> Result<()> {
    body.extend(u16::try_from(text.len())?.to_be_bytes());
    body.extend(text.as_bytes());
    Ok(())
}

fn tls(ca: &str, identity: Option<&Identity>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>()?;
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
            builder.with_client_auth_cert(chain, key)?
        }
    })
}
