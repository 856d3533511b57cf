//! Whether a CRL that was fetched may replace the one that there is. Pure.

use certwave_core::door::Scope;
use certwave_pki::crl::{Crl, CrlReadError};

/// A CRL that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) number: u64,
    /// Unix seconds.
    pub(super) this_update: i64,
    /// Unix seconds.
    pub(super) next_update: i64,
    pub(super) der: Vec<u8>,
}

/// Why a CRL is not taken; the one before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Cut short, damaged, or not by this CA.
    #[error(transparent)]
    Read(#[from] CrlReadError),
    /// It says only what is new; Mosquitto needs everything.
    #[error("it is a delta CRL")]
    Delta,
    /// For other certificates.
    #[error("its scope is {0:?}, not that of these certificates")]
    Scope(Option<String>),
    /// Its time has passed.
    #[error("it has expired")]
    Expired,
    /// Its time has not come: one of two clocks is wrong.
    #[error("it begins {0} s from now: see whether this machine's clock is right")]
    NotYet(i64),
    /// The one that there is, is newer.
    #[error("its number {got} is below {held}, that of the one before")]
    Older {
        /// Of the one refused.
        got: u64,
        /// Of the one held.
        held: u64,
    },
    /// OpenSSL goes by the first of two CRLs of one scope with the same `thisUpdate`, and Mosquitto forgets none until it ends.
    #[error(
        "it was made in the same second as the one before, which Mosquitto would go on using; the next one will do"
    )]
    SameSecond,
}

impl Refused {
    /// A short word of a closed set.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Read(error) => error.category(),
            Self::Delta => "delta",
            Self::Scope(_) => "scope",
            Self::Expired => "expired",
            Self::NotYet(_) => "not-yet",
            Self::Older { .. } => "older",
            Self::SameSecond => "same-second",
        }
    }
}

/// Judges a CRL by the CA's certificate, the URL that stands in the certificates of its scope, and the CRL held before.
pub(super) fn accept(der: Vec<u8>, ca: &[u8], url: &str, held: Option<&Held>, now: i64) -> Result<Held, Refused> {
    let crl = Crl::parse(&der)?;
    crl.verify(ca)?;
    if crl.base().is_some() {
        return Err(Refused::Delta);
    }
    if crl.scope_url() != Some(url) {
        return Err(Refused::Scope(crl.scope_url().map(str::to_owned)));
    }
    let (number, this_update, next_update) = (crl.number(), crl.this_update(), crl.next_update());
    if let Some(held) = held {
        // One that was taken by a clock which was ahead lets nobody in, and must not keep out what does.
        let begun = held.this_update <= now;
        if number < held.number || (begun && number > held.number && this_update < held.this_update) {
            return Err(Refused::Older {
                got: number,
                held: held.number,
            });
        }
        if this_update == held.this_update && der != held.der {
            return Err(Refused::SameSecond);
        }
    }
    if next_update <= now {
        return Err(Refused::Expired);
    }
    if this_update > now {
        return Err(Refused::NotYet(this_update - now));
    }
    Ok(Held {
        number,
        this_update,
        next_update,
        der,
    })
}

/// The scope that a CRL of the file says it has: by its key identifier, and the last part of its URL.
pub(super) fn scope_of(der: &[u8]) -> Option<Scope> {
    let crl = Crl::parse(der).ok()?;
    let issuer = hex::encode(crl.authority_key_id()?);
    let (_, partition) = crl.scope_url()?.rsplit_once('/')?;
    Some((issuer, partition.strip_suffix(".crl")?.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use certwave_pki::crl::{CrlEncoder, CrlHead, CrlKind};
    use certwave_pki::{CaProfile, CertificateAuthority, KeyAlgorithm, PrivateKey};
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const URL: &str = "http://pki.example/crl/ab/2027-01.crl";

    fn ca(name: &str) -> CertificateAuthority {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        CertificateAuthority::self_signed(key, &CaProfile::named(name), NOW).unwrap()
    }

    fn crl(ca: &CertificateAuthority, url: &str, number: u64, at: i64) -> Vec<u8> {
        let head = CrlHead {
            scope_url: Some(url),
            number,
            this_update: at,
            next_update: at + 3600,
            kind: CrlKind::Complete { freshest: None },
        };
        CrlEncoder::new(ca, &head, 0).unwrap().sign().unwrap()
    }

    #[test]
    fn only_a_newer_crl_of_the_right_ca_and_scope_replaces_one() {
        let (ours, other) = (ca("ours"), ca("other"));
        let take = |der: Vec<u8>, held: Option<&Held>| accept(der, ours.certificate_der(), URL, held, NOW);
        let held = take(crl(&ours, URL, 7, NOW - 60), None).unwrap();
        let newer = take(crl(&ours, URL, 8, NOW - 30), Some(&held)).unwrap();
        assert_eq!(newer.number, 8);
        assert_eq!(take(held.der.clone(), Some(&held)).unwrap(), held, "the same again");
        let refused = |der: Vec<u8>| take(der, Some(&newer)).unwrap_err().category();
        assert_eq!(refused(crl(&other, URL, 9, NOW)), "foreign");
        assert_eq!(
            refused(crl(&ours, "http://pki.example/crl/ab/2027-02.crl", 9, NOW)),
            "scope"
        );
        assert_eq!(refused(crl(&ours, URL, 7, NOW)), "older");
        assert_eq!(refused(crl(&ours, URL, 9, NOW - 31)), "older");
        assert_eq!(refused(crl(&ours, URL, 9, NOW - 30)), "same-second");
        assert_eq!(refused(crl(&ours, URL, 9, NOW + 5)), "not-yet");
        let later = Held {
            this_update: NOW + 400 * 86_400,
            ..newer.clone()
        };
        assert_eq!(
            take(crl(&ours, URL, 9, NOW), Some(&later)).unwrap().number,
            9,
            "taken by a clock that was ahead"
        );
        assert!(
            take(crl(&ours, URL, 7, NOW), Some(&later)).is_err(),
            "an older one stays one"
        );
        assert_eq!(
            take(crl(&ours, URL, 9, NOW - 3600), None).unwrap_err(),
            Refused::Expired
        );
    }

    proptest! {
        #[test]
        fn nothing_cut_short_or_changed_is_taken(cut in 0_usize..400, flip in 0_usize..400, bit in 0_u8..8) {
            let ours = ca("ours");
            let whole = crl(&ours, URL, 7, NOW - 60);
            let short = whole[..cut.min(whole.len() - 1)].to_vec();
            prop_assert!(accept(short, ours.certificate_der(), URL, None, NOW).is_err());
            let mut changed = whole.clone();
            let at = flip % whole.len();
            changed[at] ^= 1 << bit;
            prop_assert!(accept(changed, ours.certificate_der(), URL, None, NOW).is_err());
        }
    }
}
