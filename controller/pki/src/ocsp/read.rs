//! Reading answers as a relying party does (RFC 6960, 3.2 and 4.2).

use super::{BASIC, CertStatus};
use crate::{
    ParseError,
    asn1::{
        BIT_STRING, ENUMERATED, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, Tlv, constructed,
        context, nested, read_generalized_time,
    },
    certificate::Parsed,
    crl::Reason,
    issue::OCSP_SIGNING,
    signature::Signed,
};

/// The largest answer that is read, in bytes of DER: one to a request of this project has less than a tenth.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024;
/// How far a responder's clock may be ahead, seconds.
const AHEAD: i64 = 60;

/// Why an answer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Longer than [`MAX_RESPONSE_BYTES`].
    #[error("the answer has {0} bytes; at most {MAX_RESPONSE_BYTES} are read")]
    TooLarge(usize),
    /// Not a DER `OCSPResponse` of the basic type.
    #[error("not a DER OCSP answer: {0}")]
    Malformed(&'static str),
    /// The responder does not answer, by its `OCSPResponseStatus`.
    #[error("the responder answers {0}")]
    Refused(&'static str),
    /// A certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] ParseError),
    /// Whoever signed it may not answer for this CA.
    #[error("the answer is not signed for this CA: {0}")]
    Foreign(&'static str),
    /// It says nothing of the certificate that was asked about.
    #[error("the answer is about another certificate")]
    OtherCertificate,
    /// It is over, or from the future.
    #[error("the answer holds from {this_update} to {next_update} (Unix seconds), not now")]
    NotCurrent {
        /// Unix seconds.
        this_update: i64,
        /// Unix seconds.
        next_update: i64,
    },
}

impl From<Malformed> for ResponseError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// What an answer says of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// What is known of it.
    pub status: CertStatus,
    /// When there will be something newer at the latest, Unix seconds.
    pub next_update: i64,
}

/// What an answer says of the certificate with this DER `CertID` ([`IssuerId::cert_id`](super::IssuerId::cert_id)), at `now` (Unix
/// seconds), after all that RFC 6960, 3.2 demands was checked: it is about this certificate, signed by the CA itself or by whom the CA (its
/// DER certificate) has certified to answer for it, and neither over nor from the future.
pub fn check(der: &[u8], issuer: &[u8], cert_id: &[u8], now: i64) -> Result<Checked, ResponseError> {
    if der.len() > MAX_RESPONSE_BYTES {
        return Err(ResponseError::TooLarge(der.len()));
    }
    let mut basic = Reader::new(basic(der)?);
    let data = basic.any()?;
    let (algorithm, signature) = (basic.any()?, basic.any()?);
    let certificates = basic.optional(constructed(0))?;
    basic.finish()?;
    signed_for(
        &Parsed::from_der(issuer)?,
        &data,
        &algorithm,
        &signature,
        certificates,
        now,
    )?;

    let mut fields = Reader::new(data.content);
    fields.optional(constructed(0))?;
    fields.any()?;
    read_generalized_time(&mut fields)?;
    let mut singles = Reader::new(fields.expect(SEQUENCE)?);
    while !singles.is_empty() {
        let mut single = Reader::new(singles.expect(SEQUENCE)?);
        if single.any()?.whole != cert_id {
            continue;
        }
        let status = read_status(single.any()?)?;
        let this_update = read_generalized_time(&mut single)?;
        // Without one, newer information is always to be had (4.2.2.1): nothing to rely on.
        let mut next = Reader::new(single.optional(constructed(0))?.ok_or(Malformed("no nextUpdate"))?);
        let next_update = read_generalized_time(&mut next)?;
        if this_update > now + AHEAD || next_update <= now {
            return Err(ResponseError::NotCurrent {
                this_update,
                next_update,
            });
        }
        return Ok(Checked { status, next_update });
    }
    Err(ResponseError::OtherCertificate)
}

/// The content of the `BasicOCSPResponse`.
fn basic(der: &[u8]) -> Result<&[u8], ResponseError> {
    let mut outer = Reader::new(der);
    let mut response = Reader::new(outer.expect(SEQUENCE)?);
    outer.finish()?;
    match response.expect(ENUMERATED)? {
        [0] => {}
        [1] => return Err(ResponseError::Refused("malformedRequest")),
        [2] => return Err(ResponseError::Refused("internalError")),
        [3] => return Err(ResponseError::Refused("tryLater")),
        [5] => return Err(ResponseError::Refused("sigRequired")),
        [6] => return Err(ResponseError::Refused("unauthorized")),
        _ => return Err(ResponseError::Malformed("a status that there is not")),
    }
    let mut bytes = Reader::new(response.expect(constructed(0))?);
    response.finish()?;
    let mut typed = Reader::new(bytes.expect(SEQUENCE)?);
    bytes.finish()?;
    if typed.expect(OBJECT_IDENTIFIER)? != BASIC {
        return Err(ResponseError::Malformed("another type of answer than the basic one"));
    }
    let mut octets = Reader::new(typed.expect(OCTET_STRING)?);
    typed.finish()?;
    let basic = octets.expect(SEQUENCE)?;
    octets.finish()?;
    Ok(basic)
}

/// That the data is signed by the issuer, or by whom it delegated (4.2.2.2): the first of the certificates that come along.
fn signed_for(
    issuer: &Parsed,
    data: &Tlv<'_>,
    algorithm: &Tlv<'_>,
    signature: &Tlv<'_>,
    certificates: Option<&[u8]>,
    now: i64,
) -> Result<(), ResponseError> {
    if data.tag != SEQUENCE || signature.tag != BIT_STRING {
        return Err(ResponseError::Malformed("it is not signed data"));
    }
    let mut whole = Vec::with_capacity(data.whole.len() + 256);
    nested(&mut whole, SEQUENCE, |out| {
        for part in [data, algorithm, signature] {
            out.extend_from_slice(part.whole);
        }
    });
    let signed = Signed::from_der(&whole).map_err(|_| ResponseError::Malformed("it is not signed data"))?;
    if signed.is_signed_by(&issuer.public_key) {
        return Ok(());
    }
    let mut list = Reader::new(certificates.ok_or(ResponseError::Foreign("another key"))?);
    let mut list = Reader::new(list.expect(SEQUENCE)?);
    let delegate = Parsed::from_der(list.any()?.whole)?;
    if !delegate.is_issued_by(issuer) {
        Err(ResponseError::Foreign("its signer is not certified by the CA"))
    } else if !delegate.is_for(&OCSP_SIGNING) {
        Err(ResponseError::Foreign(
            "its signer lacks the extended key usage OCSPSigning",
        ))
    } else if now < delegate.not_before || now > delegate.not_after {
        Err(ResponseError::Foreign("its signer's certificate is not valid now"))
    } else if !signed.is_signed_by(&delegate.public_key) {
        Err(ResponseError::Foreign("the signature does not fit"))
    } else {
        Ok(())
    }
}

fn read_status(status: Tlv<'_>) -> Result<CertStatus, ResponseError> {
    const GOOD: u8 = context(0);
    const REVOKED: u8 = constructed(1);
    const UNKNOWN: u8 = context(2);
    match (status.tag, status.content) {
        (GOOD, []) => Ok(CertStatus::Good),
        (UNKNOWN, []) => Ok(CertStatus::Unknown),
        (REVOKED, content) => {
            let mut fields = Reader::new(content);
            let at = read_generalized_time(&mut fields)?;
            let reason = match fields.optional(constructed(0))? {
                None => Reason::Unspecified,
                Some(reason) => match Reader::new(reason).expect(ENUMERATED)? {
                    [code] => Reason::from_code(*code).ok_or(Malformed("a reason that there is not"))?,
                    _ => return Err(ResponseError::Malformed("a reason that there is not")),
                },
            };
            fields.finish()?;
            Ok(CertStatus::Revoked { at, reason })
        }
        _ => Err(ResponseError::Malformed("a status that there is not")),
    }
}
