//! `certwave-agent doctor`: looks at each thing that must be right, and says what to do where it is not.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certwave_protocol::message::Slot;
use rustls::{ClientConnection, Stream};
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;

use super::live::{Live, now};
use super::status::date;
use crate::certificate::check;
use crate::config::AgentConfig;
use crate::disk::FileDisk;
use crate::journal::Journal;
use crate::mqtt::{Address, alert_name, tls_config};
use crate::setup::Setup;
use crate::store::{KeyStore as _, Storage as _, Store, StoreError, certificate_file, key_file};
use crate::trust::Clock;

const NETWORK_TIME: Duration = Duration::from_secs(10);
/// With TLS 1.3 a broker refuses a certificate after the client's side of the handshake is done.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Right.
    Ok,
    /// Works, but somebody should know.
    Warning,
    /// Wrong.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
}

/// All that was looked at, in an order in which the first failure is the one to mend first.
#[derive(Debug, Default, Serialize)]
pub struct Diagnosis(Vec<Check>);

impl Diagnosis {
    /// Whether nothing failed.
    pub fn is_healthy(&self) -> bool {
        self.0.iter().all(|c| c.verdict != Verdict::Failed)
    }

    fn add(&mut self, name: &str, verdict: Verdict, found: impl Into<String>, advice: &str) {
        let advice = (!advice.is_empty()).then(|| advice.to_owned());
        self.0.push(Check {
            name: name.to_owned(),
            verdict,
            found: found.into(),
            advice,
        });
    }

    fn ok(&mut self, name: &str, found: impl Into<String>) {
        self.add(name, Verdict::Ok, found, "");
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.0 {
            let mark = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warning => "warn",
                Verdict::Failed => "FAIL",
            };
            writeln!(f, "{mark}  {:<22} {}", check.name, check.found)?;
            if let Some(advice) = &check.advice {
                writeln!(f, "      {:<22} -> {advice}", "")?;
            }
        }
        Ok(())
    }
}

/// Looks at everything.
pub fn examine(config_file: &Path) -> Diagnosis {
    let mut d = Diagnosis::default();
    let config = match AgentConfig::load(config_file) {
        Ok(config) => config,
        Err(error) => {
            d.add(
                "configuration",
                Verdict::Failed,
                error.to_string(),
                "mend the file, or name another with --config",
            );
            return d;
        }
    };
    let setup = match config.setup() {
        Ok(setup) => {
            d.ok(
                "configuration",
                format!("device {} of broker {}", setup.config.device, setup.config.broker),
            );
            setup
        }
        Err(error) => {
            d.add(
                "configuration",
                Verdict::Failed,
                error.to_string(),
                "mend the file or what it names",
            );
            return d;
        }
    };
    let Some((store, journal)) = state(&mut d, &config) else {
        return d;
    };
    let mut slots = Vec::new();
    for slot in [Slot::A, Slot::B] {
        if journal.held(slot).is_some() && credential(&mut d, &config, &store, slot) {
            slots.push(slot);
        }
    }
    if slots.is_empty() {
        match &setup.claim {
            Some(claim) => d.ok("credential", format!("none yet; will enrol with claim {}", claim.name)),
            None => d.add(
                "credential",
                Verdict::Failed,
                "none, and no claim",
                "give the device a claim: claim = \"...\"",
            ),
        }
    }
    dates(&mut d, &journal);
    if network(&mut d, "broker", &setup.url) {
        for slot in slots {
            handshake_with_slot(&mut d, &setup, &store, &journal, slot);
        }
    }
    if let Some(claim) = setup.claim.as_ref().filter(|_| journal.active.is_none())
        && network(&mut d, "claims' listener", &claim.claims_url)
    {
        let chain = claim.chain.clone();
        handshake(
            &mut d,
            "TLS with the claim",
            &setup,
            &store,
            &journal,
            &claim.claims_url,
            (chain, Arc::clone(&claim.tls_key)),
        );
    }
    agent(&mut d, &config);
    d
}

fn state(d: &mut Diagnosis, config: &AgentConfig) -> Option<(Store<FileDisk>, Journal)> {
    let store = match FileDisk::look(&config.state_dir) {
        Ok(disk) => Store::new(disk),
        Err(error) => {
            let found = format!("{}: {error}", config.state_dir.display());
            d.add(
                "state directory",
                Verdict::Failed,
                found,
                "run as the agent's user, and check the disk",
            );
            return None;
        }
    };
    match store.journal() {
        Ok(Some(journal)) => {
            d.ok("journal", format!("active slot {:?}", journal.active));
            Some((store, journal))
        }
        Ok(None) => {
            d.add(
                "journal",
                Verdict::Failed,
                "none: the agent has never run",
                "start it: certwave-agent run",
            );
            None
        }
        Err(error) => {
            let advice = "start the agent: it makes the journal anew from the credentials in the slots";
            d.add("journal", Verdict::Failed, error.to_string(), advice);
            None
        }
    }
}

fn credential(d: &mut Diagnosis, config: &AgentConfig, store: &Store<FileDisk>, slot: Slot) -> bool {
    let name = format!("slot {slot:?}");
    if let Ok(meta) = std::fs::metadata(config.state_dir.join(key_file(slot)))
        && meta.permissions().mode() & 0o077 != 0
    {
        let advice = format!("chmod 600 {}", config.state_dir.join(key_file(slot)).display());
        d.add(&name, Verdict::Warning, "others may read the private key", &advice);
    }
    let (chain, spki) = match (store.certificate(slot), store.spki(slot)) {
        (Ok(chain), Ok(spki)) => (chain, spki),
        (Err(error), _) | (_, Err(error)) => {
            d.add(
                &name,
                Verdict::Failed,
                error.to_string(),
                "the other slot is used; the next rotation mends this one",
            );
            return false;
        }
    };
    let Some((leaf, rest)) = chain.split_first() else {
        return false;
    };
    match check(leaf, rest, &config.device_id, &spki) {
        Ok(leaf) => {
            d.ok(&name, format!("key and certificate {} belong together", leaf.serial));
            true
        }
        Err(error) => {
            let advice = format!("{} or {} was changed by hand", certificate_file(slot), key_file(slot));
            d.add(&name, Verdict::Failed, error.to_string(), &advice);
            false
        }
    }
}

fn dates(d: &mut Diagnosis, journal: &Journal) {
    let (now, floor) = (now(), journal.clock_floor());
    if now < floor {
        let found = format!("{} is before the newest certificate began, {}", date(now), date(floor));
        d.add(
            "clock",
            Verdict::Warning,
            found,
            "set the clock; the agent goes on without it",
        );
    } else {
        d.ok("clock", date(now));
    }
    if let Some(held) = journal.active.and_then(|slot| journal.held(slot))
        && held.not_after < now
    {
        let found = format!("ended {} by this clock", date(held.not_after));
        let advice =
            "if the clock is right: have a reenrol permit given to the device, with a claim in the configuration";
        d.add("active certificate", Verdict::Failed, found, advice);
    }
}

fn network(d: &mut Diagnosis, what: &str, address: &Address) -> bool {
    let found: Vec<_> = match (address.host.as_str(), address.port).to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => {
            d.add(
                &format!("{what}: DNS"),
                Verdict::Failed,
                format!("{}: {error}", address.host),
                "check DNS and the URL",
            );
            return false;
        }
    };
    let mut last = String::new();
    for socket in found {
        match TcpStream::connect_timeout(&socket, NETWORK_TIME) {
            Ok(_) => {
                d.ok(&format!("{what}: TCP"), socket.to_string());
                return true;
            }
            Err(error) => last = format!("{socket}: {error}"),
        }
    }
    d.add(
        &format!("{what}: TCP"),
        Verdict::Failed,
        last,
        "check cable, route, firewall, and that the broker runs",
    );
    false
}

type Credential = (Vec<CertificateDer<'static>>, Arc<dyn rustls::sign::SigningKey>);

fn handshake_with_slot(d: &mut Diagnosis, setup: &Setup, store: &Store<FileDisk>, journal: &Journal, slot: Slot) {
    if let (Ok(chain), Ok(key)) = (store.certificate(slot), store.tls_key(slot)) {
        handshake(
            d,
            &format!("TLS with slot {slot:?}"),
            setup,
            store,
            journal,
            &setup.url,
            (chain, key),
        );
    }
}

/// A handshake and no more: a CONNECT would end the connection of the agent that runs.
fn handshake(
    d: &mut Diagnosis,
    name: &str,
    setup: &Setup,
    store: &Store<FileDisk>,
    journal: &Journal,
    address: &Address,
    credential: Credential,
) {
    match try_handshake(setup, store, journal, address, credential) {
        Ok(()) => d.ok(name, "let in"),
        Err(error) => match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => {
                let alert = alert_name(*alert);
                let advice = match alert.as_str() {
                    "certificate_expired" => "the certificate's time is over for the broker",
                    "certificate_revoked" => "the certificate is revoked or on hold: ask the fleet's keeper",
                    "unknown_ca" => "the broker does not trust this certificate's CA: ask the broker's keeper",
                    _ => "the broker's log says why",
                };
                d.add(name, Verdict::Failed, format!("refused: {alert}"), advice);
            }
            Some(rustls::Error::InvalidCertificate(error)) => {
                let found = format!("the broker's certificate: {error:?}");
                d.add(
                    name,
                    Verdict::Failed,
                    found,
                    "is this the right broker, and the URL's name the certificate's?",
                );
            }
            _ => d.add(name, Verdict::Failed, error.to_string(), "the broker's log says why"),
        },
    }
}

fn try_handshake(
    setup: &Setup,
    store: &Store<FileDisk>,
    journal: &Journal,
    address: &Address,
    (chain, key): Credential,
) -> io::Result<()> {
    let anchors = store
        .bundle(journal.trust)
        .map_err(|e: StoreError| io::Error::other(e.to_string()))?;
    let trust = setup.trusts.of(&anchors).map_err(io::Error::other)?;
    let clock = Clock {
        now: now(),
        floor: journal.clock_floor(),
    };
    let config = tls_config(chain, key, &trust, clock).map_err(io::Error::other)?;
    let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut tcp = TcpStream::connect((address.host.as_str(), address.port))?;
    tcp.set_read_timeout(Some(NETWORK_TIME))?;
    tcp.set_write_timeout(Some(NETWORK_TIME))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    tcp.set_read_timeout(Some(REFUSAL_TIME))?;
    match Stream::new(&mut tls, &mut tcp).read(&mut [0; 1]) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(error),
        // A broker has nothing to say before CONNECT: it shut the door.
        Ok(_) => Err(io::Error::other("the broker ended the connection")),
    }
}

fn agent(d: &mut Diagnosis, config: &AgentConfig) {
    let Some(live) = Live::read(&config.state_dir).filter(Live::is_running) else {
        return d.add("agent", Verdict::Warning, "not running", "start it: certwave-agent run");
    };
    match (live.connected, live.last_error) {
        (true, _) => d.ok("agent", "running and connected"),
        (false, error) => {
            let found = format!("running, not connected: {}", error.unwrap_or_default());
            d.add(
                "agent",
                Verdict::Failed,
                found,
                "the checks above say why; it tries again by itself",
            );
        }
    }
    if let Some(code) = live.last_ignored {
        let verdict = match code {
            certwave_protocol::code::Code::UntrustedControl | certwave_protocol::code::Code::BadSignature => {
                Verdict::Failed
            }
            _ => Verdict::Ok,
        };
        let at = live.last_ignored_at.map(date).unwrap_or_default();
        let advice = if verdict == Verdict::Failed {
            "the controller's control certificate does not chain to the trust bundle"
        } else {
            ""
        };
        d.add(
            "control",
            verdict,
            format!("the latest message that changed nothing: {code}, {at}"),
            advice,
        );
    } else {
        d.ok("control", "no message of the controller was refused");
    }
}
