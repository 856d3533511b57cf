//! Whose key has signed a device's message, and whether that still counts.

use certwave_core::model::{Credential, Device};
use certwave_core::revocation::{Holder, Standing};
use certwave_core::step::Signer;
use certwave_ledger::SerialKey;
use certwave_protocol::code::Code;
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::jws::VerifyingKey;

use super::Engine;
use super::inbox::Refusal;
use crate::clock::now;

impl Engine {
    /// Which of the device's recorded keys this is; a certificate that has ended, is revoked, or is on hold by a person's will signs
    /// nothing any more.
    pub(super) async fn signer(
        &self,
        device: &Device,
        named: Option<Fingerprint>,
    ) -> Result<(Signer, VerifyingKey), Refusal> {
        let candidates = [
            (Signer::Current, &device.current),
            (Signer::Pending, &device.pending),
            (Signer::Previous, &device.previous),
        ];
        let found = candidates
            .into_iter()
            .find_map(|(role, c)| c.as_ref().filter(|c| Some(c.fingerprint) == named).map(|c| (role, c)));
        let Some((role, credential)) = found else {
            return Err((
                Code::WrongKey,
                "not a key that the ledger records for this device".to_owned(),
            ));
        };
        if credential.not_after.saturating_mul(1000) <= now() {
            return Err((
                Code::WrongKey,
                "the certificate that signed this has expired".to_owned(),
            ));
        }
        // Where it is the current one the device is barred, which `core` knows.
        if role != Signer::Current && self.refused_by_a_person(credential).await? {
            return Err((
                Code::Revoked,
                "the certificate that signed this is revoked or on hold".to_owned(),
            ));
        }
        let key = VerifyingKey::from_spki(&credential.public_key).map_err(|e| (Code::WrongKey, e.to_string()))?;
        Ok((role, key))
    }

    /// Whether a certificate is revoked, or on hold for somebody else than a retirement: that asks the device to speak.
    async fn refused_by_a_person(&self, credential: &Credential) -> Result<bool, Refusal> {
        let key = SerialKey {
            issuer: credential.issuer.clone(),
            serial: credential.serial.clone(),
        };
        let marked = self.ledger.marked_certificate(&key).await.map_err(|e| self.out(&e))?;
        Ok(marked.is_some_and(|marked| match marked.standing {
            Standing::Good => false,
            Standing::Held { .. } => marked
                .holders
                .iter()
                .any(|holder| !matches!(holder, Holder::Retirement(_))),
            Standing::Revoked { .. } => true,
        }))
    }
}
