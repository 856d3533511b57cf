//! Templates: what renders, and what is refused when.

use std::collections::BTreeMap;

use certwave_pki::{
    AttributeType, KeyAlgorithm, LeafSubject, LeafTemplate, LeafUsage, SanKind, TemplateContext, TemplateError,
    TemplateSpec, parse_certificate_info,
};
use proptest::prelude::*;

use crate::tools::{NOW, a_day, device_csr, root};

fn render(spec: &TemplateSpec, labels: &[(&str, &str)]) -> Result<LeafSubject, TemplateError> {
    let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let context = TemplateContext {
        device_id: "pump-17",
        fleet: "pumps",
        namespace: "plant-a",
        labels: &labels,
    };
    LeafTemplate::parse(spec)?.render(&context)
}

fn subject(kind: AttributeType, text: &str) -> TemplateSpec {
    TemplateSpec {
        subject: vec![(kind, text.to_owned())],
        sans: vec![],
    }
}

fn san(kind: SanKind, text: &str) -> TemplateSpec {
    TemplateSpec {
        subject: vec![],
        sans: vec![(kind, text.to_owned())],
    }
}

#[test]
fn placeholders_are_rendered_into_the_certificate() {
    let spec = subject(
        AttributeType::OrganizationalUnit,
        "{{{fleet}}} at {labels.site} in {namespace}",
    );
    let subject = render(&spec, &[("site", "north")]).unwrap();
    let csr = device_csr(KeyAlgorithm::EcdsaP256);
    let request = a_day(&subject, csr.public_key(), LeafUsage::Device);
    let issued = root(KeyAlgorithm::EcdsaP256).issue(&request, NOW).unwrap();
    let info = parse_certificate_info(&issued.der).unwrap();
    assert_eq!(info.subject, "CN=pump-17,OU={pumps} at north in plant-a");
}

#[test]
fn unknown_placeholders_and_lone_braces_are_refused_when_parsed() {
    for (text, category) in [
        ("{device}", "unknown-placeholder"),
        ("{labels.}", "unknown-placeholder"),
        ("{}", "unknown-placeholder"),
        ("{deviceId", "unbalanced"),
        ("deviceId}", "unbalanced"),
    ] {
        let error = LeafTemplate::parse(&subject(AttributeType::Organization, text)).unwrap_err();
        assert_eq!(error.category(), category, "{text}: {error}");
    }
    let twice = [AttributeType::Organization; 2].map(|kind| (kind, "a".to_owned()));
    let spec = TemplateSpec {
        subject: twice.to_vec(),
        sans: vec![],
    };
    assert_eq!(
        LeafTemplate::parse(&spec),
        Err(TemplateError::Duplicate(AttributeType::Organization))
    );
}

#[test]
fn a_missing_empty_or_long_label_is_refused() {
    let spec = subject(AttributeType::Organization, "{labels.site}");
    assert_eq!(render(&spec, &[]), Err(TemplateError::MissingLabel("site".into())));
    assert_eq!(render(&spec, &[("site", "")]).unwrap_err().category(), "value");
    assert_eq!(
        render(&spec, &[("site", &"x".repeat(64))]).unwrap_err().category(),
        "value"
    );
    let long = subject(AttributeType::Organization, "Company {labels.site}");
    assert_eq!(
        render(&long, &[("site", &"x".repeat(60))]).unwrap_err().category(),
        "too-long"
    );
    assert_eq!(
        render(&subject(AttributeType::Organization, ""), &[])
            .unwrap_err()
            .category(),
        "empty"
    );
    assert_eq!(
        render(&subject(AttributeType::Country, "Germany"), &[])
            .unwrap_err()
            .category(),
        "too-long"
    );
    assert_eq!(
        render(&subject(AttributeType::Organization, "a\nb"), &[])
            .unwrap_err()
            .category(),
        "invalid"
    );
}

#[test]
fn a_value_cannot_add_structure_to_a_san() {
    let spec = san(SanKind::Uri, "spiffe://example.com/{labels.site}/{deviceId}");
    render(&spec, &[("site", "north")]).unwrap();
    for site in ["a/b", "..", "a?b", "a#b", "a b", "a@b", "a%2fb", "ä"] {
        assert_eq!(
            render(&spec, &[("site", site)]).unwrap_err().category(),
            "value",
            "{site}"
        );
    }
}

#[test]
fn sans_of_each_kind_are_checked() {
    for (kind, good, bad) in [
        (SanKind::Dns, "{deviceId}.plant.example.com", "_x.example.com"),
        (SanKind::Dns, "a", "*.example.com"),
        (SanKind::Uri, "urn:dev:{deviceId}", "no-scheme"),
        (SanKind::Email, "{deviceId}@example.com", "example.com"),
        (SanKind::Ip, "2001:db8::1", "300.0.0.1"),
    ] {
        render(&san(kind, good), &[]).unwrap_or_else(|e| panic!("{good}: {e}"));
        assert_eq!(render(&san(kind, bad), &[]).unwrap_err().category(), "invalid", "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused_without_panic(text in "[{}a-zA-Z. é]{0,20}") {
        let _ = render(&subject(AttributeType::Organization, &text), &[]);
        let _ = render(&san(SanKind::Uri, &text), &[]);
    }
}
