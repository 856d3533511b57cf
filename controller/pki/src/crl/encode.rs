//! Making CRLs (RFC 5280, 5.1), one line after the other.

use std::ops::Deref;

use super::{
    CrlError, Listed, MAX_CRL_BYTES, Mark,
    extensions::{write_authority_key_id, write_base, write_freshest, write_number, write_scope},
};
use crate::{
    CertificateAuthority,
    asn1::{BIT_STRING, Header, SEQUENCE, certificate_time, constructed, generalized_time, nested, unsigned},
};

/// What a CRL says besides its entries.
#[derive(Debug, Clone, Copy)]
pub struct CrlHead<'a> {
    /// The URL of the scope, the very one that stands in the certificates' CDP; goes into the critical IDP. A delta CRL has
    /// that of its base (RFC 5280, 5.2.4). `None`: no IDP, for a CRL of all that the CA has issued. Only such a one
    /// covers certificates without CDP; OpenSSL asks for one of the root when it is told `-crl_check_all`.
    pub scope_url: Option<&'a str>,
    /// The CRL number, strictly increasing in the scope; complete and delta CRLs share one sequence (5.2.3).
    pub number: u64,
    /// When it is made, Unix seconds.
    pub this_update: i64,
    /// By when the next one is there, Unix seconds.
    pub next_update: i64,
    /// Whether it says everything or what is new.
    pub kind: CrlKind<'a>,
}

/// Whether a CRL says everything or what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlKind<'a> {
    /// Everything that is revoked in the scope.
    Complete {
        /// The URL of the scope's delta CRLs, when there are any (RFC 5280, 5.2.6).
        freshest: Option<&'a str>,
    },
    /// What has changed since a complete CRL (5.2.4).
    Delta {
        /// The number of that CRL.
        base: u64,
    },
}

/// The longest entry: serial number with sign byte, `GeneralizedTime`, extensions.
const MAX_ENTRY: usize = PLAIN_ENTRY + INVALIDITY.len() + 17;
/// An entry without `invalidityDate`, as nearly all are: room is made for these.
const PLAIN_ENTRY: usize = 2 + 23 + 17 + 2 + REASON.len();
/// What follows the entries: extensions with two URLs of 2 KiB, and a signature of RSA-4096.
const TAIL: usize = 5 * 1024;
/// Room is reserved for at most so many entries, whatever number is announced.
const MAX_RESERVED: usize = MAX_CRL_BYTES / PLAIN_ENTRY;
/// The extension with the reason code of an entry, with the code at its end.
const REASON: [u8; 12] = [0x30, 10, 6, 3, 0x55, 0x1d, 0x15, 4, 3, 0x0a, 1, 0];
/// The beginning of the extension `invalidityDate`; a `GeneralizedTime` of 17 bytes follows.
const INVALIDITY: [u8; 9] = [0x30, 24, 6, 3, 0x55, 0x1d, 0x18, 4, 17];

/// A CRL in the making. Each line costs one write of some 50 bytes into the one buffer that becomes the CRL.
///
/// The lengths that stand before the entries are known only after the last, so room is left for them and moved away at
/// the end: no second copy of the list is held, and nothing needs to be known ahead.
#[derive(Debug)]
pub struct CrlEncoder<I> {
    /// Whoever encodes on several threads in turn shares it.
    issuer: I,
    /// Version to `nextUpdate`.
    before: Vec<u8>,
    /// The content of `crlExtensions`.
    extensions: Vec<u8>,
    delta: bool,
    out: Vec<u8>,
    /// Where the entries begin in `out`.
    entries_at: usize,
    count: usize,
}

impl<I: Deref<Target = CertificateAuthority>> CrlEncoder<I> {
    /// Begins a CRL; `expected` is about how many entries will come, so that room is made once.
    pub fn new(issuer: I, head: &CrlHead<'_>, expected: usize) -> Result<Self, CrlError> {
        if head.next_update <= head.this_update {
            return Err(CrlError::NoValidity);
        }
        let mut before = Vec::with_capacity(256);
        unsigned(&mut before, 1);
        before.extend_from_slice(issuer.algorithm().identifier_der());
        before.extend_from_slice(issuer.subject_der());
        before.extend_from_slice(certificate_time(head.this_update).as_bytes());
        before.extend_from_slice(certificate_time(head.next_update).as_bytes());

        // Headers of the CRL, of what is signed, and of the list of entries.
        let entries_at = before.len() + 3 * Header::MAX;
        let mut out = Vec::with_capacity(entries_at + expected.min(MAX_RESERVED) * PLAIN_ENTRY + TAIL);
        out.resize(entries_at, 0);
        Ok(Self {
            before,
            extensions: extensions(&issuer, head)?,
            issuer,
            delta: matches!(head.kind, CrlKind::Delta { .. }),
            out,
            entries_at,
            count: 0,
        })
    }

    /// Appends a line. That a serial number comes but once, and no time after `this_update`, is the caller's to see to.
    pub fn push(&mut self, entry: &Listed) -> Result<(), CrlError> {
        if entry.mark == Mark::Removed && !self.delta {
            return Err(CrlError::Removal);
        }
        if self.out.len() > MAX_CRL_BYTES - MAX_ENTRY - TAIL {
            return Err(CrlError::TooLarge);
        }
        let start = self.out.len();
        self.out.extend_from_slice(&[SEQUENCE, 0]);
        entry.serial.write(&mut self.out);
        self.out.extend_from_slice(certificate_time(entry.at).as_bytes());
        self.push_extensions(entry);
        close(&mut self.out, start);
        self.count += 1;
        Ok(())
    }

    /// `crlEntryExtensions`, which are left out when there are none (5.3).
    fn push_extensions(&mut self, entry: &Listed) {
        let code = entry.mark.encoded();
        if code.is_none() && entry.invalid_since.is_none() {
            return;
        }
        let start = self.out.len();
        self.out.extend_from_slice(&[SEQUENCE, 0]);
        if let Some(code) = code {
            let mut reason = REASON;
            reason[REASON.len() - 1] = code;
            self.out.extend_from_slice(&reason);
        }
        if let Some(since) = entry.invalid_since {
            self.out.extend_from_slice(&INVALIDITY);
            self.out.extend_from_slice(generalized_time(since).as_bytes());
        }
        close(&mut self.out, start);
    }

    /// How many lines there are so far.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no line so far.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Signs the CRL and gives its DER.
    pub fn sign(mut self) -> Result<Vec<u8>, CrlError> {
        let entries = self.out.len() - self.entries_at;
        self.out.extend_from_slice(&self.extensions);

        let mut start = self.entries_at;
        if entries > 0 {
            start = put_before(&mut self.out, start, Header::new(SEQUENCE, entries).as_bytes());
        }
        start = put_before(&mut self.out, start, &self.before);
        let signed = self.out.len() - start;
        start = put_before(&mut self.out, start, Header::new(SEQUENCE, signed).as_bytes());

        let signature = self.issuer.issuer.key().sign(&self.out[start..])?;
        self.out.extend_from_slice(self.issuer.algorithm().identifier_der());
        let bits = Header::new(BIT_STRING, signature.len() + 1);
        self.out.extend_from_slice(bits.as_bytes());
        self.out.push(0);
        self.out.extend_from_slice(&signature);

        let whole = self.out.len() - start;
        start = put_before(&mut self.out, start, Header::new(SEQUENCE, whole).as_bytes());
        self.out.drain(..start);
        self.out.shrink_to_fit();
        Ok(self.out)
    }
}

/// Sets the length of what begins at `start`. It is below [`MAX_ENTRY`], so one byte holds it.
#[allow(clippy::cast_possible_truncation)]
fn close(out: &mut [u8], start: usize) {
    out[start + 1] = (out.len() - start - 2) as u8;
}

/// Writes `bytes` so that they end at `end`; gives where they begin.
fn put_before(out: &mut [u8], end: usize, bytes: &[u8]) -> usize {
    let start = end - bytes.len();
    out[start..end].copy_from_slice(bytes);
    start
}

fn extensions(issuer: &CertificateAuthority, head: &CrlHead<'_>) -> Result<Vec<u8>, CrlError> {
    let mut out = Vec::with_capacity(512);
    let scope = head.scope_url.map(checked_url).transpose()?;
    let mut written = Ok(());
    nested(&mut out, constructed(0), |out| {
        nested(out, SEQUENCE, |out| {
            write_authority_key_id(out, issuer.key_id());
            write_number(out, head.number);
            if let Some(url) = scope {
                write_scope(out, url);
            }
            written = match head.kind {
                CrlKind::Complete { freshest: None } => Ok(()),
                CrlKind::Complete { freshest: Some(url) } => checked_url(url).map(|url| write_freshest(out, url)),
                CrlKind::Delta { base } if base < head.number => {
                    write_base(out, base);
                    Ok(())
                }
                CrlKind::Delta { base } => Err(CrlError::Base {
                    number: head.number,
                    base,
                }),
            };
        });
    });
    written.map(|()| out)
}

fn checked_url(url: &str) -> Result<&str, CrlError> {
    const MAX_URL: usize = 2048;
    if url.len() <= MAX_URL && url.starts_with("http") && url.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(url)
    } else {
        Err(CrlError::Scope(url.to_owned()))
    }
}
