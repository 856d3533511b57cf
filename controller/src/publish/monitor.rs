//! Reads back what relying parties get, from the very URLs that stand in certificates, before anything can expire.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwave_core::model::ObjectRef;
use certwave_pki::FULL_PARTITION;
use certwave_pki::crl::{Crl, MAX_CRL_BYTES};
use certwave_pki::ocsp::{self, CertStatus, HashAlgorithm, IssuerId};
use certwave_pki::{CertificateAuthority, Serial};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::scope::{Now, is_delta, is_over, kind_of, renew_before, renewed_before};
use super::{Publisher, Stamp};
use crate::gates::Client;
use crate::metrics::{CrlShown, CrlTimes, Metrics};
use crate::registry::{CrlPolicy, IssuerEntry, Registry};

/// How often all are read back.
const PERIOD: Duration = Duration::from_secs(10);
/// For one CRL: a million lines over a slow line included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long an older number may be served: caches keep a CRL for a minute.
const LAG: i64 = 150;

/// A serial number that no CA draws.
const NEVER_ISSUED: &[u8] = b"nobody's number";

const UNREADABLE: &str = "Unreadable";
const BAD_SIGNATURE: &str = "BadSignature";

/// What is wrong with what is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// `CamelCase`, of a closed set.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What is served of one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The scope.
    pub scope: String,
    /// Number, end (Unix seconds) and length of the CRL that is served, if one is that can be read.
    pub served: Option<(u64, i64, usize)>,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
}

/// A served CRL whose signature fits, with the tag that its server gives it.
#[derive(Debug, Clone)]
struct Served {
    number: u64,
    this_update: i64,
    next_update: i64,
    entries: usize,
    scope_url: Option<String>,
    tag: Option<String>,
}

/// What is served of the scopes of one kind, together: months share a label, as their names would grow without end.
#[derive(Debug, Default)]
struct Gathered {
    times: Option<CrlTimes>,
    entries: usize,
    troubled: bool,
}

impl Gathered {
    /// Adds what is served of one scope. The end of one that no further one follows (`over`) is nobody's worry.
    fn take(&mut self, served: Option<&Served>, policy: &CrlPolicy, over: bool, fine: bool) {
        self.troubled |= !fine;
        let Some(served) = served else { return };
        self.entries += served.entries;
        if over || self.times.is_some_and(|times| times.next_update <= served.next_update) {
            return;
        }
        let (this_update, next_update) = (served.this_update, served.next_update);
        self.times = Some(CrlTimes {
            this_update,
            due: next_update - renewed_before(this_update, next_update, policy),
            next_update,
        });
    }

    fn shown(&self) -> CrlShown {
        CrlShown {
            times: self.times,
            entries: self.entries,
            fine: !self.troubled,
        }
    }
}

/// By CA and kind.
type Kinds = BTreeMap<(ObjectRef, &'static str), Gathered>;

/// Puts into the metrics what was found, and takes out what was `shown` before and is there no more: it would fall due.
fn show(metrics: &Metrics, shown: &Kinds, found: &Kinds) {
    for ((authority, kind), gathered) in found {
        metrics.authorities.show_crls(authority, kind, gathered.shown());
    }
    for (authority, kind) in shown.keys().filter(|key| !found.contains_key(key)) {
        metrics.authorities.forget_crls(authority, kind);
    }
}

/// See the module.
pub struct Monitor {
    publisher: Arc<Publisher>,
    client: Client,
    metrics: Arc<Metrics>,
    /// By issuer's key id.
    watched: RwLock<HashMap<String, Vec<Watched>>>,
    /// How OCSP answered last, by issuer's key id.
    answers: RwLock<HashMap<String, Result<(), Trouble>>>,
    changed: watch::Sender<()>,
}

impl Monitor {
    /// A monitor that has not looked yet.
    pub fn new(publisher: Arc<Publisher>, client: Client, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            publisher,
            client,
            metrics,
            watched: RwLock::default(),
            answers: RwLock::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// What was found last of a CA's CRLs, by scope; `None`: nobody has looked yet.
    pub fn watched(&self, issuer: &str) -> Option<Vec<Watched>> {
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        watched.get(issuer).cloned()
    }

    /// How OCSP answered last for a CA; `None`: nobody has asked yet.
    pub fn answered(&self, issuer: &str) -> Option<Result<(), Trouble>> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.get(issuer).cloned()
    }

    /// The client that reads CRLs.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Changes when something else is served, or something is wrong, or right again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Looks for ever.
    pub async fn run(&self, registry: &Registry) {
        let mut known: HashMap<String, Served> = HashMap::new();
        let mut shown = Kinds::new();
        loop {
            let mut kinds = Kinds::new();
            for issuer in registry.issuers() {
                self.look(&issuer, &mut known, &mut kinds).await;
                self.ask(&issuer.ca).await;
            }
            show(&self.metrics, &shown, &kinds);
            shown = kinds;
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn look(&self, issuer: &IssuerEntry, known: &mut HashMap<String, Served>, kinds: &mut Kinds) {
        let Some(publication) = issuer.ca.publication() else {
            return;
        };
        let (key_id, now) = (issuer.ca.key_id().to_string(), Now::of(self.publisher.clock()));
        let scopes = self.publisher.scopes(&key_id);
        let mut found = Vec::new();
        for (scope, stamp) in &scopes {
            let over = is_over(scope, stamp, now);
            if (over && stamp.next_update <= now.signing) || superseded(scope, stamp, &scopes) {
                continue;
            }
            let url = publication.crl_url(issuer.ca.key_id(), scope);
            let served = self.read(&url, issuer.ca.certificate_der(), known.remove(&url)).await;
            let idp = match scope.strip_suffix(".delta").unwrap_or(scope) {
                FULL_PARTITION => None,
                partition => Some(publication.crl_url(issuer.ca.key_id(), partition)),
            };
            let trouble = match &served {
                Ok(served) => judge(served, stamp, idp.as_deref(), &issuer.crl, over, now),
                Err(trouble) => Some(trouble.clone()),
            };
            if let Err(Trouble {
                reason: UNREADABLE | BAD_SIGNATURE,
                ..
            }) = &served
            {
                // Whoever has it refuses everybody: that cannot wait until the next one is due.
                if let Err(fault) = self.publisher.mend(issuer, scope).await {
                    tracing::error!(scope, error = %fault, "a damaged CRL cannot be made anew");
                }
            }
            let trouble = trouble.map(|trouble| self.explained(&trouble, &key_id, scope, &url));
            let readable = served.as_ref().ok();
            let gathered = kinds.entry((issuer.object.clone(), kind_of(scope))).or_default();
            gathered.take(readable, &issuer.crl, over, trouble.is_none());
            let shown = served.as_ref().ok().map(|s| (s.number, s.next_update, s.entries));
            if let Ok(served) = served {
                known.insert(url, served);
            }
            found.push(Watched {
                scope: scope.clone(),
                served: shown,
                trouble,
            });
        }
        let mut watched = self.watched.write().unwrap_or_else(PoisonError::into_inner);
        if watched.get(&key_id) != Some(&found) {
            watched.insert(key_id, found);
            self.changed.send_replace(());
        }
    }

    /// Asks OCSP about a certificate that was never issued, from where certificates say: a signed "unknown" must come back.
    async fn ask(&self, ca: &CertificateAuthority) {
        let Some(url) = ca
            .publication()
            .and_then(|publication| publication.ocsp_url(ca.key_id()))
        else {
            return;
        };
        let Ok(serial) = Serial::from_bytes(NEVER_ISSUED) else {
            return;
        };
        let cert_id = IssuerId::of(ca).cert_id(HashAlgorithm::Sha256, &serial);
        // By GET, with the request in the path (RFC 6960, A.1).
        let request = STANDARD.encode(ocsp::ask(&cert_id));
        let request = request.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let asked = format!("{url}/{request}");
        let asked = self.client.fetch(&asked, None, TIMEOUT, ocsp::MAX_RESPONSE_BYTES);
        let now = || self.publisher.clock().signing_time() / 1000;
        let answer = match asked.await {
            Err(error) => Err(("Unreachable", error.to_string())),
            Ok((200, _, body)) => believed(&body, ca, &cert_id, now()),
            Ok((status, _, _)) => Err(("Unreachable", format!("the server answers {status}"))),
        };
        let answer = answer.map_err(|(reason, message)| Trouble {
            reason,
            message: format!("{url}: {message}"),
        });
        let before = {
            let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
            answers.insert(ca.key_id().to_string(), answer.clone())
        };
        if before.as_ref() != Some(&answer) {
            self.changed.send_replace(());
        }
    }

    /// Where it is, and why there is none newer, if that is known.
    fn explained(&self, trouble: &Trouble, issuer: &str, scope: &str, url: &str) -> Trouble {
        let fault = self.publisher.fault(issuer, scope);
        let why = fault.map_or_else(String::new, |fault| format!("; the next one cannot be made: {fault}"));
        Trouble {
            message: format!("{url}: {}{why}", trouble.message),
            reason: trouble.reason,
        }
    }

    /// Gets a CRL and checks its signature; one whose tag has not changed was checked before.
    async fn read(&self, url: &str, ca: &CertificateDer<'static>, before: Option<Served>) -> Result<Served, Trouble> {
        let unreachable = |message: String| Trouble {
            reason: "Unreachable",
            message,
        };
        let tag = before.as_ref().and_then(|before| before.tag.as_deref());
        let answer = self.client.fetch(url, tag, TIMEOUT, MAX_CRL_BYTES).await;
        let (status, tag, body) = answer.map_err(|error| unreachable(error.to_string()))?;
        match (status, before) {
            (304, Some(before)) => return Ok(before),
            (200, _) => {}
            (status, _) => return Err(unreachable(format!("the server answers {status}"))),
        }
        let ca = ca.clone();
        let checked = crate::apart::run(move || checked(&body, &ca, tag));
        checked.await.map_err(|error| unreachable(error.to_string()))?
    }
}

/// Whether relying parties could believe this answer about [`NEVER_ISSUED`]; else reason and message.
fn believed(answer: &[u8], ca: &CertificateAuthority, cert_id: &[u8], now: i64) -> Result<(), (&'static str, String)> {
    match ocsp::check(answer, ca.certificate_der(), cert_id, now) {
        Ok(checked) if checked.status == CertStatus::Unknown => Ok(()),
        Ok(checked) => Err((
            "WrongStatus",
            format!("a certificate that was never issued is {:?}", checked.status),
        )),
        Err(error @ ocsp::ResponseError::Refused(_)) => Err(("Refused", error.to_string())),
        Err(error @ ocsp::ResponseError::NotCurrent { .. }) => Err(("NotCurrent", error.to_string())),
        Err(error @ ocsp::ResponseError::Foreign(_)) => Err((BAD_SIGNATURE, error.to_string())),
        Err(error) => Err((UNREADABLE, error.to_string())),
    }
}

fn checked(body: &[u8], ca: &[u8], tag: Option<String>) -> Result<Served, Trouble> {
    let crl = Crl::parse(body).map_err(|error| Trouble {
        reason: UNREADABLE,
        message: error.to_string(),
    })?;
    crl.verify(ca).map_err(|error| Trouble {
        reason: BAD_SIGNATURE,
        message: error.to_string(),
    })?;
    Ok(Served {
        number: crl.number(),
        this_update: crl.this_update(),
        next_update: crl.next_update(),
        entries: crl.len(),
        scope_url: crl.scope_url().map(str::to_owned),
        tag,
    })
}

/// A delta to a complete CRL that has been replaced: nobody needs it.
fn superseded(scope: &str, stamp: &Stamp, all: &[(String, Stamp)]) -> bool {
    let complete = scope.strip_suffix(".delta");
    complete.is_some_and(|complete| {
        all.iter()
            .any(|(other, newer)| other == complete && newer.number > stamp.number)
    }) || (is_delta(scope) && complete.is_none())
}

/// What is wrong with a CRL that is served where `last` was published, at `now`. `over`: no further one will come.
fn judge(
    served: &Served,
    last: &Stamp,
    idp: Option<&str>,
    policy: &CrlPolicy,
    over: bool,
    now: Now,
) -> Option<Trouble> {
    let trouble = |reason, message: String| Some(Trouble { reason, message });
    let left = served.next_update - now.signing;
    if served.scope_url.as_deref() != idp {
        let shown = served.scope_url.as_deref().unwrap_or("everything");
        trouble("WrongScope", format!("the CRL served there is for {shown}"))
    } else if left <= 0 {
        trouble(
            "Expired",
            format!("the CRL ended {} s ago: brokers lock everybody out", -left),
        )
    } else if !now.has_begun(served.this_update) {
        trouble(
            "NotBegun",
            format!(
                "the CRL begins in {} s: it was made by a clock that was ahead, and brokers lock everybody out",
                served.this_update - now.signing
            ),
        )
    } else if served.number < last.number && now.signing - last.this_update > LAG {
        trouble(
            "Stale",
            format!(
                "CRL number {} is served, but {} was published; is a cache in between?",
                served.number, last.number
            ),
        )
    } else if !over && left < renew_before(last, policy) / 2 {
        trouble(
            "Expiring",
            format!("the CRL ends in {left} s and should have been made anew long ago"),
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: i64 = 1_790_000_000;
    const DAY: i64 = 86_400;
    const URL: &str = "http://pki.example.com/crl/0a/2026-09.crl";
    const POLICY: CrlPolicy = CrlPolicy {
        validity: 7 * DAY,
        renew_before: 3 * DAY,
        complete_every: None,
    };

    fn reason(change: impl FnOnce(&mut Served), made: i64) -> Option<&'static str> {
        let last = Stamp {
            number: 9,
            this_update: made,
            next_update: made + 7 * DAY,
            covers: 0,
            entries: 0,
            names_deltas: false,
        };
        let mut served = Served {
            number: 9,
            this_update: made,
            next_update: last.next_update,
            entries: 0,
            scope_url: Some(URL.to_owned()),
            tag: None,
        };
        change(&mut served);
        judge(&served, &last, Some(URL), &POLICY, false, Now::at(NOW)).map(|trouble| trouble.reason)
    }

    #[test]
    fn each_fault_of_a_served_crl_has_its_reason() {
        assert_eq!(reason(|_| (), NOW - DAY), None);
        assert_eq!(reason(|_| (), NOW - 8 * DAY), Some("Expired"));
        assert_eq!(reason(|_| (), NOW - 6 * DAY), Some("Expiring"));
        assert_eq!(
            reason(|_| (), NOW - 5 * DAY),
            None,
            "there is time to make the next one"
        );
        assert_eq!(reason(|_| (), NOW + 400 * DAY), Some("NotBegun"));
        assert_eq!(reason(|s| s.number = 8, NOW - DAY), Some("Stale"));
        assert_eq!(reason(|s| s.number = 8, NOW - 5), None, "caches need a moment");
        assert_eq!(reason(|s| s.number = 10, NOW - DAY), None);
        assert_eq!(reason(|s| s.scope_url = None, NOW - DAY), Some("WrongScope"));
    }

    #[test]
    fn months_are_shown_together_by_the_one_that_ends_first() {
        let served = |next_update, entries| Served {
            number: 1,
            this_update: next_update - 7 * DAY,
            next_update,
            entries,
            scope_url: None,
            tag: None,
        };
        let mut months = Gathered::default();
        let mut take = |served: Option<Served>, over, fine| months.take(served.as_ref(), &POLICY, over, fine);
        take(Some(served(NOW + 5 * DAY, 3)), false, true);
        take(Some(served(NOW + 2 * DAY, 4)), false, false);
        take(Some(served(NOW + 6 * DAY, 5)), false, true);
        take(Some(served(NOW + DAY, 6)), true, true);
        take(None, false, true);
        let shown = CrlShown {
            times: Some(CrlTimes {
                this_update: NOW - 5 * DAY,
                due: NOW - DAY,
                next_update: NOW + 2 * DAY,
            }),
            entries: 18,
            fine: false,
        };
        assert_eq!(
            months.shown(),
            shown,
            "one that is wrong is not hidden by those after it"
        );
    }

    #[test]
    fn what_is_there_no_more_is_taken_out_of_the_metrics() {
        let metrics = Metrics::new().unwrap();
        let object = ObjectRef {
            namespace: "plant".to_owned(),
            name: "root".to_owned(),
        };
        let kinds = |names: &[&'static str]| -> Kinds {
            let each = names.iter().map(|kind| ((object.clone(), *kind), Gathered::default()));
            each.collect()
        };
        show(&metrics, &Kinds::new(), &kinds(&["partition", "delta"]));
        assert!(metrics.text().contains("scope=\"delta\""));
        show(&metrics, &kinds(&["partition", "delta"]), &kinds(&["partition"]));
        let text = metrics.text();
        assert!(
            text.contains("scope=\"partition\"") && !text.contains("scope=\"delta\""),
            "{text}"
        );
    }
}
