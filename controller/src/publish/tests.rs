//! The publisher and what it serves, on a real ledger.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use certwave_core::model::ObjectRef;
use certwave_core::policy::FleetPolicy;
use certwave_core::revocation::{Holder, Reason};
use certwave_ledger::{Act, CertificateKind, CertificateRecord, FleetKey, Mark, Part, SqliteLedger, Target};
use certwave_pki::crl::{Listed, Mark as Line};
use certwave_pki::{
    CA_PARTITION, CaProfile, CertificateAuthority, CsrPolicy, FULL_PARTITION, KeyAlgorithm, LeafTemplate, PrivateKey,
    Publication, partition_of,
};
use certwave_protocol::ids::Fingerprint;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::select::http_date;
use super::*;
use crate::clock::{machine, now};
use crate::registry::{CrlPolicy, FleetEntry, Registry};

const DAY: i64 = 86_400;
const SOON: Duration = Duration::from_secs(20);

/// A CA, its ledger and publisher.
struct Press {
    ledger: Arc<dyn Ledger>,
    publisher: Arc<Publisher>,
    issuer: IssuerEntry,
    _dir: TempDir,
}

fn publisher(ledger: &Arc<dyn Ledger>, epoch: Epoch) -> Arc<Publisher> {
    let metrics = Arc::new(Metrics::new().unwrap());
    Publisher::new(Arc::clone(ledger), epoch, Arc::default(), metrics)
}

impl Press {
    async fn new(complete_every: Option<i64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(dir.path().join("ledger.sqlite")).unwrap());
        let epoch = ledger.take_epoch("test", now()).await.unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = CertificateAuthority::self_signed(key, &CaProfile::named("Plant"), now() / 1000).unwrap();
        let issuer = IssuerEntry {
            ca: Arc::new(ca.with_publication(Publication::new("http://pki.example.com").unwrap())),
            object: ObjectRef {
                namespace: "plant".to_owned(),
                name: "root".to_owned(),
            },
            crl: CrlPolicy {
                validity: 7 * DAY,
                renew_before: 3 * DAY,
                complete_every,
            },
            revoked: false,
        };
        let publisher = publisher(&ledger, epoch);
        Self {
            ledger,
            publisher,
            issuer,
            _dir: dir,
        }
    }

    /// The publisher of a new term.
    async fn publisher_of(&self, part: Part) -> Arc<Publisher> {
        let epoch = self.ledger.begin_term(&part, "test", now()).await.unwrap();
        publisher(&self.ledger, epoch)
    }

    fn key_id(&self) -> String {
        self.issuer.ca.key_id().to_string()
    }

    /// Records a certificate that ends in a month; answers its fingerprint.
    async fn issue(&self, number: u8) -> Fingerprint {
        let fingerprint = Fingerprint([number; 32]);
        let record = CertificateRecord {
            fingerprint,
            serial: format!("{number:02x}aa"),
            issuer: self.key_id(),
            spki: Fingerprint([number; 32]),
            public_key: vec![number],
            not_before: now() / 1000,
            not_after: Self::end(),
            kind: CertificateKind::Claim,
            holder: format!("claim-{number}"),
            identity: None,
            job: None,
            der: vec![number],
            issued_at: now(),
        };
        self.ledger.record(self.publisher.epoch, record).await.unwrap();
        fingerprint
    }

    fn end() -> i64 {
        now() / 1000 / DAY * DAY + 30 * DAY
    }

    fn month() -> String {
        partition_of(Self::end())
    }

    async fn mark(&self, fingerprint: Fingerprint, act: Act) {
        let mark = Mark {
            target: Target::Certificate(fingerprint),
            act,
            requested_at: now(),
            who: "test".to_owned(),
            detail: None,
            revocation: None,
        };
        self.ledger.mark(self.publisher.epoch, now(), vec![mark]).await.unwrap();
    }

    async fn revoke(&self, fingerprint: Fingerprint, reason: Reason) {
        let act = Act::Revoke {
            reason,
            invalid_since: Some(1_790_000_000),
        };
        self.mark(fingerprint, act).await;
    }

    /// The last CRL of a scope, checked: its number, IDP and lines.
    async fn published(&self, scope: &str) -> Option<(u64, Option<String>, Vec<Listed>)> {
        let crl = self.ledger.crl(&self.key_id(), scope).await.unwrap()?;
        let read = Crl::parse(&crl.der).unwrap();
        read.verify(self.issuer.ca.certificate_der()).unwrap();
        assert_eq!((read.number(), read.this_update()), (crl.number, crl.this_update));
        Some((
            crl.number,
            read.scope_url().map(str::to_owned),
            read.entries().collect(),
        ))
    }

    async fn get(&self, cache: &Arc<Cache>, path: &str, headers: &[(header::HeaderName, &str)]) -> Response<Body> {
        let mut request = Request::get(format!("/crl/{}/{path}", self.key_id()));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let app = router::<()>(Arc::clone(cache)).with_state(());
        app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }
}

async fn body(response: Response<Body>) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap()
        .to_vec()
}

fn head(response: &Response<Body>, name: header::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !met().await {
        assert!(tokio::time::Instant::now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_revocation_stands_in_its_month_and_in_the_list_of_all() {
    let press = Press::new(None).await;
    let (month, serial) = (Press::month(), "01aa");
    let url = format!("http://pki.example.com/crl/{}/{month}.crl", press.key_id());
    let certificate = press.issue(1).await;
    for scope in [month.as_str(), "full", "ca"] {
        press.publisher.ensure(&press.issuer, scope).await.unwrap();
    }
    press.revoke(certificate, Reason::KeyCompromise).await;
    let mut behind = press.ledger.crls_behind().await.unwrap();
    behind.sort();
    assert_eq!(
        behind,
        [(press.key_id(), month.clone()), (press.key_id(), "full".to_owned())]
    );
    let before = press.published(&month).await.unwrap();
    for scope in [month.as_str(), "full", "ca"] {
        press.publisher.publish(&press.issuer, scope).await.unwrap();
    }
    let (number, idp, lines) = press.published(&month).await.unwrap();
    assert!(number > before.0 && before.2.is_empty());
    assert_eq!(idp.as_ref(), Some(&url));
    let [line] = lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (line.serial.to_string().as_str(), line.mark),
        (serial, Line::Revoked(Reason::KeyCompromise))
    );
    assert_eq!(line.invalid_since, Some(1_790_000_000));
    let (_, idp, lines) = press.published("full").await.unwrap();
    assert_eq!((idp, lines.len()), (None, 1));
    assert!(press.published("ca").await.unwrap().2.is_empty());
    assert!(press.ledger.crls_behind().await.unwrap().is_empty());
}

/// With threads, as in production, and lists of many pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_published_at_once_and_a_thousand_in_a_handful_of_crls() {
    let press = Press::new(None).await;
    let (month, registry) = (Press::month(), Arc::new(Registry::default()));
    registry.add_issuer(&press.issuer);
    let mut certificates = Vec::new();
    for number in 1..200 {
        certificates.push(press.issue(number).await);
    }
    press.publisher.ensure(&press.issuer, &month).await.unwrap();
    let running = tokio::spawn(run(Arc::clone(&press.publisher), Arc::clone(&registry)));
    until("the CRL of all", async || press.published("full").await.is_some()).await;

    press.revoke(certificates[0], Reason::Superseded).await;
    registry.standing_moved();
    let told = tokio::time::Instant::now();
    until("one line", async || press.published(&month).await.unwrap().2.len() == 1).await;
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());

    let before = press.publisher.metrics.crls_published.get();
    for certificate in &certificates {
        press.revoke(*certificate, Reason::Superseded).await;
        registry.standing_moved();
    }
    until("all lines", async || {
        press.published(&month).await.unwrap().2.len() == certificates.len()
            && press.published("full").await.unwrap().2.len() == certificates.len()
    })
    .await;
    let made = press.publisher.metrics.crls_published.get() - before;
    assert!(made <= 12, "{made} CRLs for {} revocations", certificates.len());
    running.abort();
}

/// The API server answers, and both clocks are off by so many days.
fn both_clocks_are_off(press: &Press, days: i64) {
    let at = machine() + days * DAY * 1000;
    press.publisher.clock.heard(&http_date(at / 1000), at, Duration::ZERO);
}

#[tokio::test]
async fn what_a_clock_that_was_ahead_has_dated_is_nobodys_last_crl() {
    let press = Press::new(None).await;
    let (month, registry) = (Press::month(), Arc::new(Registry::default()));
    registry.add_issuer(&press.issuer);
    let certificate = press.issue(1).await;
    let begins_in = async |scope: &str| {
        let stamp = press
            .publisher
            .stamp(&(press.key_id(), scope.to_owned()))
            .await
            .unwrap();
        stamp.unwrap().this_update - machine() / 1000
    };
    let scopes = [CA_PARTITION, FULL_PARTITION, &month];
    both_clocks_are_off(&press, 400);
    for scope in scopes {
        press.publisher.publish(&press.issuer, scope).await.unwrap();
        assert!(begins_in(scope).await > 399 * DAY);
    }
    both_clocks_are_off(&press, 0);
    // Before the next certificate of the month leaves,
    press.publisher.ensure(&press.issuer, &month).await.unwrap();
    assert!(begins_in(&month).await <= 0);

    both_clocks_are_off(&press, 400);
    press.publisher.publish(&press.issuer, &month).await.unwrap();
    both_clocks_are_off(&press, 0);
    // and after a change, or for its age alone.
    press.revoke(certificate, Reason::KeyCompromise).await;
    for aging in [false, true] {
        let wanted = press.publisher.wanted(&registry, aging).await.unwrap();
        let wanted: Vec<_> = wanted.into_iter().map(|(_, scope)| scope).collect();
        let expected = if aging {
            scopes.to_vec()
        } else {
            vec![&*month, FULL_PARTITION]
        };
        assert!(
            expected.iter().all(|scope| wanted.iter().any(|one| one == scope)),
            "{wanted:?}"
        );
    }
    for scope in scopes {
        press.publisher.publish(&press.issuer, scope).await.unwrap();
        assert!(begins_in(scope).await <= 0);
    }
    assert_eq!(press.published(&month).await.unwrap().2.len(), 1);
    assert!(
        press.publisher.wanted(&registry, true).await.unwrap().is_empty(),
        "once is enough"
    );
}

#[tokio::test]
async fn a_months_first_crl_out_of_a_brokers_term_is_taken_up_and_kept_current() {
    let press = Press::new(None).await;
    let (month, registry) = (Press::month(), Arc::new(Registry::default()));
    registry.add_issuer(&press.issuer);
    let running = tokio::spawn(run(Arc::clone(&press.publisher), registry));
    until("the CRL of all", async || press.published("full").await.is_some()).await;

    // Another process looks after a broker, and issues into a month that has no CRL yet.
    let other = press.publisher_of(Part::Broker("main".parse().unwrap())).await;
    other.ensure(&press.issuer, &month).await.unwrap();
    let first = press.published(&month).await.unwrap().0;
    let key = (press.key_id(), month.clone());
    until("the leader to know of it", async || {
        press.publisher.known(&key).is_some_and(|stamp| stamp.number == first)
    })
    .await;

    // Nobody in this process says that something has changed.
    let certificate = press.issue(1).await;
    press.revoke(certificate, Reason::KeyCompromise).await;
    until("one line", async || press.published(&month).await.unwrap().2.len() == 1).await;
    assert!(press.published(&month).await.unwrap().0 > first);
    // Whoever made the first one reads what is out before it makes another.
    other.ensure(&press.issuer, &month).await.unwrap();
    assert_eq!(other.metrics.crls_published.get(), 1);
    running.abort();
}

#[tokio::test]
async fn numbers_rise_above_all_that_were_published_whatever_a_backup_knows() {
    let mut press = Press::new(None).await;
    let first = {
        press.publisher.ensure(&press.issuer, "ca").await.unwrap();
        press.published("ca").await.unwrap().0
    };
    let lost = first + 1_000_000_000;
    let floor = vec![(press.key_id(), "ca".to_owned(), lost)];
    press.ledger.mark_restored(press.publisher.epoch, now()).await.unwrap();
    let refused = press.publisher.publish(&press.issuer, "ca").await;
    assert!(matches!(refused, Err(CrlFault::Restored)), "{refused:?}");
    // That has ended its term as well.
    press.publisher = press.publisher_of(Part::Controller).await;
    press
        .ledger
        .take_in(press.publisher.epoch, now(), Vec::new(), floor)
        .await
        .unwrap();
    press.ledger.recovered(press.publisher.epoch, now()).await.unwrap();
    press.publisher.publish(&press.issuer, "ca").await.unwrap();
    assert_eq!(press.published("ca").await.unwrap().0, lost + 1);
}

#[tokio::test]
async fn builds_of_one_scope_never_overtake_each_other() {
    let press = Press::new(None).await;
    let month = Press::month();
    let mut builds = tokio::task::JoinSet::new();
    for number in 1..30 {
        let certificate = press.issue(number).await;
        press.revoke(certificate, Reason::Unspecified).await;
        let (publisher, issuer, month) = (Arc::clone(&press.publisher), press.issuer.clone(), month.clone());
        builds.spawn(async move { publisher.publish(&issuer, &month).await.unwrap() });
    }
    let stamps = builds.join_all().await;
    let last = stamps.iter().max_by_key(|stamp| stamp.number).unwrap();
    assert!(
        stamps.iter().all(|stamp| stamp.covers <= last.covers),
        "a newer number says less"
    );
    let (number, _, lines) = press.published(&month).await.unwrap();
    assert_eq!((number, lines.len()), (last.number, 29));
}

#[tokio::test]
async fn a_delta_says_what_is_new_and_what_was_released() {
    let press = Press::new(Some(3600)).await;
    let (month, delta) = (Press::month(), format!("{}.delta", Press::month()));
    let (held, revoked) = (press.issue(1).await, press.issue(2).await);
    press.mark(held, Act::Hold(Holder::Person)).await;
    let complete = press.publisher.publish(&press.issuer, &month).await.unwrap();
    press.mark(held, Act::Release(Holder::Person)).await;
    press.revoke(revoked, Reason::KeyCompromise).await;
    press.publisher.publish(&press.issuer, &delta).await.unwrap();

    let crl = press.ledger.crl(&press.key_id(), &delta).await.unwrap().unwrap();
    let read = Crl::parse(&crl.der).unwrap();
    assert_eq!(read.base(), Some(complete.number));
    assert!(read.number() > complete.number);
    let lines: Vec<_> = read
        .entries()
        .map(|line| (line.serial.to_string(), line.mark))
        .collect();
    let expected = [
        ("01aa".to_owned(), Line::Removed),
        ("02aa".to_owned(), Line::Revoked(Reason::KeyCompromise)),
    ];
    assert_eq!(lines, expected);
    let base = press.ledger.crl(&press.key_id(), &month).await.unwrap().unwrap();
    let base = Crl::parse(&base.der).unwrap();
    assert_eq!(base.scope_url(), read.scope_url(), "a delta has its base's scope");
    assert!(base.freshest().unwrap().ends_with(&format!("/{delta}.crl")));
    let next = press.publisher.publish(&press.issuer, &month).await.unwrap();
    assert!(next.number > crl.number, "one sequence of numbers for both");
}

/// A fleet whose devices have certificates of this CA, at a broker that nobody has described further.
fn fleet(issuer: &IssuerEntry) -> FleetEntry {
    let bundle = Fingerprint([0; 32]);
    FleetEntry {
        key: FleetKey {
            namespace: "plant".to_owned(),
            name: "meters".to_owned(),
        },
        uid: "uid".to_owned(),
        broker: "b".parse().unwrap(),
        policy: FleetPolicy {
            renew_before: 0,
            issuer: issuer.ca.key_id().to_string(),
            bundle,
        },
        strategy: Arc::default(),
        calendar: Arc::default(),
        strategy_fault: None,
        issuer: issuer.clone(),
        template: LeafTemplate::default(),
        csr: CsrPolicy::default(),
        algorithms: Vec::new(),
        validity: Duration::from_hours(24),
        backdate: Duration::ZERO,
        anchors: Vec::new(),
        bundle,
    }
}

#[tokio::test]
async fn what_brokers_go_by_says_a_change_at_once_whatever_deltas_there_are() {
    let press = Press::new(Some(3600)).await;
    let (month, delta) = (Press::month(), format!("{}.delta", Press::month()));
    let registry = Registry::default();
    registry.add_issuer(&press.issuer);
    press.publisher.ensure(&press.issuer, &month).await.unwrap();
    let revoked = press.issue(1).await;
    press.revoke(revoked, Reason::KeyCompromise).await;
    let wanted = async || {
        let wanted = press.publisher.wanted(&registry, false).await.unwrap();
        let scopes = wanted.into_iter().map(|(_, scope)| scope);
        scopes.filter(|scope| scope != "full").collect::<Vec<_>>()
    };
    assert_eq!(wanted().await, [delta], "the complete one in its time");
    let fleet = fleet(&press.issuer);
    registry.set_fleet(fleet.key.clone(), Some(fleet));
    assert_eq!(wanted().await, [month], "a broker's node knows no deltas");
}

#[tokio::test]
async fn a_crl_that_is_damaged_in_the_ledger_is_made_anew_and_no_other_is() {
    let press = Press::new(None).await;
    let month = Press::month();
    let certificate = press.issue(1).await;
    press.revoke(certificate, Reason::KeyCompromise).await;
    let first = press.publisher.publish(&press.issuer, &month).await.unwrap();
    press.publisher.mend(&press.issuer, &month).await.unwrap();
    let mut crl = press.ledger.crl(&press.key_id(), &month).await.unwrap().unwrap();
    assert_eq!(crl.number, first.number);
    for damage in [crl.der.len() - 5, 0] {
        crl.number += 1;
        crl.der[damage] ^= 1;
        let damaged = crl.number;
        press
            .ledger
            .publish_crl(press.publisher.epoch, crl, first.covers, now())
            .await
            .unwrap();
        press.publisher.mend(&press.issuer, &month).await.unwrap();
        let (number, _, lines) = press.published(&month).await.unwrap();
        assert!(number > damaged);
        assert_eq!(lines.len(), 1);
        crl = press.ledger.crl(&press.key_id(), &month).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_crl_is_served_whole_in_part_and_compressed_and_only_when_it_is_news() {
    let press = Press::new(None).await;
    let cache = Cache::new(Arc::clone(&press.ledger));
    for number in 1..100 {
        let certificate = press.issue(number).await;
        press.revoke(certificate, Reason::KeyCompromise).await;
    }
    let stamp = press.publisher.publish(&press.issuer, "full").await.unwrap();
    let der = press.ledger.crl(&press.key_id(), "full").await.unwrap().unwrap().der;

    let whole = press.get(&cache, "full.crl", &[]).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(head(&whole, header::CONTENT_TYPE), "application/pkix-crl");
    assert_eq!(
        head(&whole, header::CACHE_CONTROL),
        "public, max-age=60, must-revalidate"
    );
    let (tag, date) = (
        head(&whole, header::ETAG).to_owned(),
        head(&whole, header::LAST_MODIFIED).to_owned(),
    );
    assert_eq!(tag, format!("\"{}\"", stamp.number));
    assert_eq!(body(whole).await, der);

    for condition in [
        (header::IF_NONE_MATCH, tag.as_str()),
        (header::IF_MODIFIED_SINCE, &date),
    ] {
        let same = press.get(&cache, "full.crl", &[condition]).await;
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(head(&same, header::ETAG), tag);
        assert!(body(same).await.is_empty());
    }
    let part = press.get(
        &cache,
        "full.crl",
        &[(header::RANGE, "bytes=10-19"), (header::ACCEPT_ENCODING, "gzip")],
    );
    let part = part.await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(head(&part, header::CONTENT_RANGE), format!("bytes 10-19/{}", der.len()));
    assert_eq!(body(part).await, der[10..20]);
    let beyond = press
        .get(&cache, "full.crl", &[(header::RANGE, "bytes=1000000-")])
        .await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    let small = press
        .get(&cache, "full.crl", &[(header::ACCEPT_ENCODING, "gzip")])
        .await;
    assert_eq!(head(&small, header::CONTENT_ENCODING), "gzip");
    assert_ne!(head(&small, header::ETAG), tag);
    assert_eq!(head(&small, header::VARY), "Accept-Encoding");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body(small).await[..])
        .read_to_end(&mut plain)
        .unwrap();
    assert_eq!(plain, der);
    let pem = String::from_utf8(body(press.get(&cache, "full.pem", &[]).await).await).unwrap();
    assert_eq!(pem, certwave_pki::crl::to_pem(&der));

    for path in ["full.der", "nonsense.crl", "2026-13.crl", "2031-01.crl"] {
        assert_eq!(
            press.get(&cache, path, &[]).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let next = press.publisher.publish(&press.issuer, "full").await.unwrap();
    until("the next number", async || {
        let response = press.get(&cache, "full.crl", &[(header::IF_NONE_MATCH, &tag)]).await;
        head(&response, header::ETAG) == format!("\"{}\"", next.number)
    })
    .await;
}
