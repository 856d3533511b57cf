//! What a CA's object says about its certificate.

use certwave_crds::CertificateAuthority;
use certwave_pki::{CaProfile, CaSubject};
use kube::ResourceExt;

/// The subject and validity that the object asks for.
pub(super) fn profile(object: &CertificateAuthority) -> CaProfile {
    let spec = &object.spec;
    CaProfile {
        subject: subject(object),
        path_len: spec.path_length.and_then(|n| u8::try_from(n).ok()),
        validity: spec.validity.as_std(),
        backdate: spec.backdate.as_std(),
    }
}

/// The subject alone, as a request has it.
pub(super) fn subject(object: &CertificateAuthority) -> CaSubject {
    let name = object
        .spec
        .common_name
        .clone()
        .unwrap_or_else(|| object.name_any().chars().take(64).collect());
    CaSubject {
        organization: object.spec.organization.clone(),
        ..CaSubject::named(name)
    }
}
