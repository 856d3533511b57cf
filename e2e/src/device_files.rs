//! What lies on a simulated device's disk, read without knowing the agent's file names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::identity::Identity;

/// The chain on the device whose leaf has this SHA-256 (64 lower-case hex digits), and the private key that fits it.
///
/// # Errors
/// When the device holds no such certificate, or no key for it.
pub fn identity(device: &Path, sha256: &str) -> Result<Identity> {
    let mut files = Vec::new();
    collect(device, &mut files)?;
    let certificate = files
        .iter()
        .find(|text| CertificateDer::from_pem_slice(text.as_bytes()).is_ok_and(|leaf| fingerprint(&leaf) == sha256));
    let certificate = certificate.with_context(|| format!("{} holds no certificate {sha256}", device.display()))?;
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    for text in &files {
        if let Ok(key) = PrivateKeyDer::from_pem_slice(text.as_bytes())
            && fits(&leaf, &key)
        {
            return Ok(Identity {
                certificate: certificate.clone(),
                key: text.clone(),
            });
        }
    }
    bail!("{} holds no key for its certificate {sha256}", device.display())
}

/// SHA-256 of the first certificate in `pem`, as 64 lower-case hex digits.
///
/// # Errors
/// When there is none.
pub fn sha256(pem: &str) -> Result<String> {
    Ok(fingerprint(&CertificateDer::from_pem_slice(pem.as_bytes())?))
}

fn fits(leaf: &CertificateDer<'static>, key: &PrivateKeyDer<'_>) -> bool {
    let Ok(signer) = any_supported_type(key) else {
        return false;
    };
    CertifiedKey::new(vec![leaf.clone()], signer).keys_match().is_ok()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    hex::encode(digest)
}

fn collect(directory: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Ok(text) = fs::read_to_string(&path)
            && text.contains("-----BEGIN ")
        {
            files.push(text);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::identity::Authority;
    use crate::scratch::Scratch;

    #[test]
    fn the_active_certificate_comes_with_the_key_that_fits() {
        let scratch = Scratch::new("device").unwrap();
        let authority = Authority::new("root").unwrap();
        let slots = ["a", "b"].map(|slot| {
            let identity = authority.client("meter-1", None).unwrap();
            scratch
                .write(&format!("slot-{slot}.pem"), &identity.certificate)
                .unwrap();
            scratch.write(&format!("slot-{slot}.key"), &identity.key).unwrap();
            identity
        });
        for slot in slots {
            let sha256 = fingerprint(&CertificateDer::from_pem_slice(slot.certificate.as_bytes()).unwrap());
            assert_eq!(identity(scratch.path(), &sha256).unwrap().key, slot.key);
        }
        assert!(identity(scratch.path(), &"0".repeat(64)).is_err());
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error() {
        let scratch = Scratch::new("device").unwrap();
        let slot = Authority::new("root").unwrap().client("meter-1", None).unwrap();
        scratch.write("slot-a.pem", &slot.certificate).unwrap();
        let sha256 = fingerprint(&CertificateDer::from_pem_slice(slot.certificate.as_bytes()).unwrap());
        assert!(identity(scratch.path(), &sha256).is_err());
    }
}
