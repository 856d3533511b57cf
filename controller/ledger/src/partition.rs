//! Scopes of CRLs.

use jiff::Timestamp;

/// The partition of a CA's CRL about subordinate CAs.
pub const CA_PARTITION: &str = "ca";
/// The scope of a CRL about all that a CA has issued.
pub const FULL_PARTITION: &str = "full";

use crate::CertificateKind;

/// The partition whose CRL lists a certificate that ends at `not_after` (Unix seconds): the UTC month of its end, as `YYYY-MM`,
/// or [`CA_PARTITION`].
pub(crate) fn partition_of(kind: CertificateKind, not_after: i64) -> String {
    if kind == CertificateKind::Authority {
        return CA_PARTITION.to_owned();
    }
    let end = Timestamp::from_second(not_after).unwrap_or(Timestamp::MAX);
    end.strftime("%Y-%m").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_the_utc_month_of_the_end() {
        assert_eq!(partition_of(CertificateKind::Device, 1_798_761_599), "2026-12");
        assert_eq!(partition_of(CertificateKind::Claim, 1_798_761_600), "2027-01");
        assert_eq!(partition_of(CertificateKind::Authority, 1_798_761_600), "ca");
        assert_eq!(partition_of(CertificateKind::Device, i64::MAX), "9999-12");
    }
}
