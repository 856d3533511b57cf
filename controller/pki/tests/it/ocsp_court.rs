//! Where OCSP is judged: a CA, its responder, and what OpenSSL and Go ask and say. They look at the real clock, so the
//! certificates here are of today.

use certwave_pki::{
    CaProfile, CertificateAuthority, Issued, KeyAlgorithm, LeafSubject, LeafUsage, PrivateKey, Publication,
    certificates_to_pem,
    ocsp::{Answer, CertStatus, IssuerId, OcspRequest, OcspSigner, StatusTimes},
};
use tempfile::TempDir;

use crate::{
    ocsp::certify,
    tools::{a_day, device_csr, go_verify, openssl, today, write},
};

/// A CA with a responder and two leaves, and a directory for what the judges are shown.
pub(crate) struct Court {
    dir: TempDir,
    pub(crate) now: i64,
    pub(crate) ca: CertificateAuthority,
    pub(crate) signer: OcspSigner,
    pub(crate) leaves: [Issued; 2],
}

impl Court {
    pub(crate) fn new(algorithm: KeyAlgorithm) -> Self {
        let now = today() - 120;
        let publication = Publication::new("http://pki.example.com").unwrap().with_ocsp();
        let key = PrivateKey::generate(algorithm).unwrap();
        let ca = CertificateAuthority::self_signed(key, &CaProfile::named("Plant root"), now)
            .unwrap()
            .with_publication(publication);
        let subject = LeafSubject::common_name("pump-17").unwrap();
        let leaf = |_| {
            let csr = device_csr(KeyAlgorithm::EcdsaP256);
            ca.issue(&a_day(&subject, csr.public_key(), LeafUsage::Device), now)
                .unwrap()
        };
        let leaves = [0, 1].map(leaf);
        let key = PrivateKey::generate(algorithm).unwrap();
        let certificate = certify(&ca, key.public_key(), now).der;
        let signer = OcspSigner::new(key, certificate, ca.certificate_der()).unwrap();
        let court = Self {
            dir: TempDir::new().unwrap(),
            now,
            ca,
            signer,
            leaves,
        };
        court.file("ca.pem", certificates_to_pem([court.ca.certificate_der()]));
        for (name, leaf) in ["a.pem", "b.pem"].iter().zip(&court.leaves) {
            court.file(name, certificates_to_pem([&leaf.der]));
        }
        court
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.dir.path(), name, content)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) const fn times(&self) -> StatusTimes {
        StatusTimes {
            this_update: self.now - 60,
            next_update: self.now + 3600,
            produced_at: self.now,
        }
    }

    /// The request that `openssl ocsp` makes about these leaves, by the hash `digest`.
    pub(crate) fn openssl_request(&self, digest: &str, leaves: &[&str], more: &[&str]) -> Vec<u8> {
        let (out, ca) = (self.path("request.der"), self.path("ca.pem"));
        let mut args = vec!["ocsp", "-issuer", &ca, "-reqout", &out];
        let leaves: Vec<_> = leaves.iter().map(|leaf| self.path(leaf)).collect();
        for leaf in &leaves {
            args.extend([digest, "-cert", leaf]);
        }
        args.extend(more);
        openssl(&args).unwrap();
        std::fs::read(out).unwrap()
    }

    /// Answers as a responder does: reads the request, finds the issuer, says what `status` says.
    pub(crate) fn answer(&self, request: &[u8], status: impl Fn(&str) -> CertStatus) -> Answer {
        let request = OcspRequest::parse(request).unwrap();
        assert_eq!(request.issuer([&IssuerId::of(&self.ca)]), Some(0));
        self.signer
            .answer(&request, self.times(), |serial| status(&serial.to_string()))
            .unwrap()
    }

    /// What `openssl ocsp` says of an answer to the request that it made last.
    pub(crate) fn openssl(
        &self,
        answer: &[u8],
        digest: &str,
        leaves: &[&str],
        more: &[&str],
    ) -> Result<String, String> {
        let (ca, response) = (self.path("ca.pem"), self.file("response.der", answer));
        let mut args = vec!["ocsp", "-issuer", &ca, "-CAfile", &ca, "-respin", &response];
        let leaves: Vec<_> = leaves.iter().map(|leaf| self.path(leaf)).collect();
        for leaf in &leaves {
            args.extend([digest, "-cert", leaf]);
        }
        args.extend(more);
        openssl(&args)
    }

    pub(crate) fn go(&self, answer: &[u8], leaf: &str) -> Result<String, String> {
        let response = self.file("response.der", answer);
        let (ca, leaf) = (self.path("ca.pem"), self.path(leaf));
        go_verify(&["ocsp", "-issuer", &ca, "-leaf", &leaf, "-response", &response])
    }
}
