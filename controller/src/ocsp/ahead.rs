//! Signs for certificates before anybody asks about them: those from which devices start that were heard lately. So not even the
//! first answer after a start waits for the ledger. What is asked about in other ways is signed when it is first asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use certwave_core::model::Millis;
use certwave_ledger::{DeviceRow, InUse, LedgerError, SerialKey};
use certwave_pki::ocsp::HashAlgorithm;

use super::Responder;
use super::cache::Stale;

/// Devices that are looked at in one go, four times a second: some 5 ms of one core.
const PAGE: u32 = 256;
/// Whoever was not heard for so long is not expected at a door, milliseconds.
const EXPECTED: Millis = 86_400_000;
/// What one certificate takes in the cache, roughly, bytes.
const BYTES: usize = 2048;

/// How far the present round through all devices is.
#[derive(Debug, Default)]
struct Round {
    after: Option<DeviceRow>,
    /// Unix seconds: not before this.
    begins: i64,
}

/// The rounds: one in half of an answer's validity, after which those that nobody asked about are dropped.
#[derive(Debug, Default)]
pub(super) struct Rounds(Mutex<Round>);

impl Rounds {
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew: nothing that was signed is left.
    pub(super) fn restart(&self) {
        *self.lock() = Round::default();
    }

    /// The next round does not begin before its time. `now` in Unix seconds.
    fn is_over(&self, now: i64) -> bool {
        now < self.lock().begins
    }

    /// Behind which device to go on.
    fn after(&self) -> Option<DeviceRow> {
        self.lock().after
    }

    /// The devices up to `last` were looked at; without one the round is over, and the next begins at `next`.
    fn went_on(&self, last: Option<DeviceRow>, next: i64) {
        *self.lock() = match last {
            Some(last) => Round {
                after: Some(last),
                begins: 0,
            },
            None => Round {
                after: None,
                begins: next,
            },
        };
    }
}

impl Responder {
    /// Looks at the next devices and signs the common request for those that are expected, as far as half of the cache is free for
    /// what nobody has asked about yet. `now` in Unix seconds.
    pub(super) async fn sign_for_devices(&self, now: i64) -> Result<(), LedgerError> {
        if self.rounds.is_over(now) {
            return Ok(());
        }
        let room = (self.options.cache_bytes / 2).saturating_sub(self.cache.bytes()) / BYTES;
        let limit = u32::try_from(room).unwrap_or(PAGE).min(PAGE);
        if limit == 0 {
            return Ok(());
        }
        let page = self.source.in_use(self.rounds.after(), limit).await?;
        self.rounds
            .went_on(page.last().map(|last| last.device), now + self.options.validity / 2);
        let wanted = expected(&page, now).filter_map(|key| self.unsigned(key)).collect();
        self.sign_ahead(wanted, now).await
    }

    /// What is to be signed for a certificate that nothing is kept of: the answer to a request that names it by SHA-1, as brokers
    /// and OpenSSL do. Others are signed when they are asked for, from what is known then.
    fn unsigned(&self, certificate: &SerialKey) -> Option<Stale> {
        let all = self.signers.all();
        let entry = all.iter().find(|entry| entry.issuer == certificate.issuer)?;
        let serial = certificate.serial.parse().ok()?;
        let key = (entry.slot, serial);
        (!self.cache.holds(&key)).then(|| Stale {
            key,
            names: vec![entry.signer.issuer().cert_id(HashAlgorithm::Sha1, &serial).into()],
        })
    }
}

/// Certificates of devices that were heard lately. `now` in Unix seconds.
fn expected(page: &[InUse], now: i64) -> impl Iterator<Item = &SerialKey> {
    let since = now.saturating_mul(1000).saturating_sub(EXPECTED);
    page.iter()
        .filter(move |device| device.last_seen.is_some_and(|seen| seen >= since))
        .filter_map(|device| device.certificate.as_ref())
}
