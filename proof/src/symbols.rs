//! Small numbers in place of random values: certificates, jobs, nonces, connections, bundles.
//!
//! A certificate has the number of its key, as no key gets a second one.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::LazyLock;

use certwave_core::model::{Credential, Millis};
use certwave_protocol::ids::{Fingerprint, JobId, Nonce, SessionId};
use certwave_protocol::message::Der;

/// A certificate and its key; 0 is none.
pub type Leaf = u8;

/// The controller's clock, which stands still: what a deadline needs is added where one passes.
pub const NOW: Millis = 1_800_000_000_000;
/// Seconds of a certificate's validity before and after [`NOW`].
const YEAR: i64 = 31_536_000;
/// Most certificates that one state can name.
pub const LEAVES: Leaf = 16;
/// The device's present connection.
pub const PRESENT: SessionId = Nonce([1; 16]);
/// Any connection before. They are all alike: nothing can tell one of them from another.
pub const PAST: SessionId = Nonce([0; 16]);

static LEAF: LazyLock<Vec<Fingerprint>> = LazyLock::new(|| (0..LEAVES).map(|n| Fingerprint::of(&[n])).collect());
static BUNDLE: LazyLock<Vec<Fingerprint>> =
    LazyLock::new(|| (0..3).map(|n| Fingerprint::of_bundle(anchors(n))).collect());

/// A certificate's bytes, and a request's for its key.
pub fn der(leaf: Leaf) -> Der {
    Der(vec![leaf])
}

/// Which certificate or request these bytes are.
pub fn number_of(der: &Der) -> Leaf {
    der.0.first().copied().unwrap_or(0)
}

/// A certificate's fingerprint.
pub fn fingerprint(leaf: Leaf) -> Fingerprint {
    LEAF[usize::from(leaf)]
}

/// The certificate with this fingerprint; 0 where there is none.
pub fn leaf(of: &Fingerprint) -> Leaf {
    (0..LEAVES).find(|n| LEAF[usize::from(*n)] == *of).unwrap_or(0)
}

/// SHA-256 of the public key, as far as anybody looks.
pub fn spki(leaf: Leaf) -> Fingerprint {
    Fingerprint([0x80 | leaf; 32])
}

/// The anchors of a bundle.
pub fn anchors(bundle: u8) -> Vec<Der> {
    vec![Der(vec![0xb0 | bundle])]
}

/// A bundle's hash.
pub fn bundle(number: u8) -> Fingerprint {
    BUNDLE[usize::from(number)]
}

/// The bundle with this hash; 0 where there is none.
pub fn bundle_number(of: &Fingerprint) -> u8 {
    (0..3).find(|n| BUNDLE[usize::from(*n)] == *of).unwrap_or(0)
}

/// A job's id.
pub fn job_id(number: u8) -> JobId {
    JobId::from_u128(u128::from(number))
}

/// The number of a job.
pub fn job_number(id: JobId) -> u8 {
    u8::try_from(id.as_u128()).unwrap_or(u8::MAX)
}

/// A nonce: a job's has the job's number.
pub fn nonce(number: u8) -> Nonce {
    Nonce([number; 16])
}

/// What the ledger keeps of a certificate.
pub fn credential(leaf: Leaf) -> Credential {
    Credential {
        fingerprint: fingerprint(leaf),
        spki: spki(leaf),
        serial: String::new(),
        issuer: String::new(),
        not_before: NOW / 1000 - YEAR,
        not_after: NOW / 1000 + YEAR,
        public_key: Vec::new(),
    }
}

/// A name that is known to be valid.
pub(crate) fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    #[expect(clippy::expect_used, reason = "only valid names are written down here")]
    text.parse().expect("a valid name")
}
