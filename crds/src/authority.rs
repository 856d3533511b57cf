//! `CertificateAuthority`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, KeyAlgorithm, LocalRef, SecretKeyRef, rules};

/// A CA that issues certificates: exactly one of root, subordinate, external or secret says where its key and certificate come from.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "certwave.dev",
    version = "v1alpha1",
    kind = "CertificateAuthority",
    plural = "certificateauthorities",
    doc = "A certificate authority: a root, a subordinate of another CA here, a subordinate signed outside, or one brought along in a Secret.",
    namespaced,
    status = "CertificateAuthorityStatus",
    shortname = "ca",
    category = "certwave",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether it issues."}"#,
    printcolumn = r#"{"name":"Algorithm","type":"string","jsonPath":".spec.keyAlgorithm","description":"Algorithm of its key."}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.notAfter","description":"End of its certificate's validity."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Why it is ready or not."}"#,
    printcolumn = r#"{"name":"Key","type":"string","jsonPath":".status.keyId","priority":1,"description":"Its key id."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::exactly_one(&["root", "subordinate", "external", "secret"]),
    validation = Rule::new("has(self.root) == has(oldSelf.root) && has(self.subordinate) == has(oldSelf.subordinate) && has(self.external) == has(oldSelf.external) && has(self.secret) == has(oldSelf.secret)").message("the source of a CA cannot change; create another CertificateAuthority and move the fleets with a Rotation"),
    validation = rules::unchanged(&["keySecretName"], "keySecretName cannot change once the CA exists")
)]
pub struct CertificateAuthoritySpec {
    /// A self-signed root: write {}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootSource>,
    /// A subordinate, issued by another CertificateAuthority of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::immutable("the issuer of a subordinate CA cannot change; create another CertificateAuthority"))]
    pub subordinate: Option<SubordinateSource>,
    /// A subordinate that is signed outside: its CSR appears in status.csr, its certificate is brought back here. Write {} at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSource>,
    /// A CA brought along: a Secret with tls.crt (chain, the CA's own certificate first) and tls.key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::immutable("the Secret that a CA comes from cannot change; create another CertificateAuthority"))]
    pub secret: Option<SecretSource>,
    /// Algorithm of the CA's key: ECDSA-P256, ECDSA-P384, Ed25519, RSA-2048, RSA-3072 or RSA-4096. Cannot change. A CA from a Secret keeps the key that it brings.
    #[serde(default)]
    #[x_kube(validation = rules::immutable("keyAlgorithm cannot change: keys are made once; create another CertificateAuthority"))]
    pub key_algorithm: KeyAlgorithm,
    /// Common name of the CA's subject; the object's name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub common_name: Option<String>,
    /// Organization of the CA's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organization: Option<String>,
    /// Validity of the CA's certificate; a subordinate's is cut to its issuer's.
    #[serde(default = "validity")]
    #[x_kube(validation = rules::more_than_zero())]
    pub validity: Duration,
    /// How far before now validity begins, for devices with slow clocks.
    #[serde(default = "backdate")]
    pub backdate: Duration,
    /// How many CAs may follow below this one (RFC 5280, 4.2.1.9); no limit where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 8))]
    pub path_length: Option<i32>,
    /// Where CRLs and the CA's certificate are published. Without it, certificates carry no distribution point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
    /// How CRLs are made.
    #[serde(default)]
    pub crl: CrlPolicy,
    /// How OCSP answers are signed.
    #[serde(default)]
    pub ocsp: OcspPolicy,
    /// Secret that keeps the CA's key; `<name>-ca` where left out. It has no owner: deleting this object keeps the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key_secret_name: Option<String>,
}

fn validity() -> Duration {
    Duration::days(3650)
}

fn backdate() -> Duration {
    Duration::hours(1)
}

/// A self-signed root; it has no settings of its own.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
pub struct RootSource {}

/// A subordinate of a CA here.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubordinateSource {
    /// The CA that signs this one.
    pub issuer_ref: LocalRef,
}

/// A subordinate signed outside.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.certificate) && has(self.certificateSecretRef))").message("bring the certificate back in certificate or in certificateSecretRef, not in both"))]
pub struct ExternalSource {
    /// The signed certificate with its chain, PEM, the CA's own first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = rules::pem("certificate", "CERTIFICATE"))]
    pub certificate: Option<String>,
    /// Secret that holds the signed certificate with its chain, as PEM; the key is tls.crt where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret_ref: Option<SecretKeyRef>,
}

/// A CA from a Secret.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    /// The Secret, with tls.crt and tls.key.
    pub secret_ref: LocalRef,
}

/// Where a CA publishes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.configMapName) && has(self.secretName))").message("name a ConfigMap or a Secret for the CRLs, not both"))]
pub struct Publication {
    /// Base URL, http or https, written into certificates: CRLs are at `<base>/crl/...`, CA certificates at `<base>/ca/...`.
    #[serde(rename = "baseURL")]
    #[schemars(length(max = 200))]
    #[x_kube(validation = rules::base_url())]
    pub base_url: String,
    /// Whether OCSP answers for this CA's certificates at `<base>/ocsp/...`, and certificates say so. Those issued before keep what they say.
    #[serde(default = "enabled")]
    pub ocsp: bool,
    /// ConfigMap of this namespace into which the CRLs are written, too, while they fit: `<partition>.crl` (DER) for each, and crl.pem with all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: Option<String>,
    /// The same as a Secret, for those who can mount Secrets only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

fn enabled() -> bool {
    true
}

/// How CRLs are made.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::renewed_within_validity())]
pub struct CrlPolicy {
    /// From thisUpdate to nextUpdate. Brokers lock everybody out when a CRL is over, so leave time to repair.
    #[serde(default = "crl_validity")]
    #[x_kube(validation = rules::more_than_zero())]
    pub validity: Duration,
    /// How long before nextUpdate a CRL is made anew; must be less than validity.
    #[serde(default = "crl_renew_before")]
    pub renew_before: Duration,
    /// Delta CRLs beside the complete ones, for those who read them: write {}. A change then stands in the delta at once, and in the complete CRL within completeEvery. Mosquitto, NATS and EMQX read no deltas: leave this out for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<CrlDelta>,
}

/// Delta CRLs (RFC 5280, 5.2.4).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrlDelta {
    /// How long a change may stand in delta CRLs alone before a complete CRL says it, too.
    #[serde(default = "complete_every")]
    #[x_kube(validation = rules::more_than_zero())]
    pub complete_every: Duration,
}

fn complete_every() -> Duration {
    Duration::hours(1)
}

fn crl_validity() -> Duration {
    Duration::days(7)
}

fn crl_renew_before() -> Duration {
    Duration::days(3)
}

impl Default for CrlPolicy {
    fn default() -> Self {
        Self {
            validity: crl_validity(),
            renew_before: crl_renew_before(),
            delta: None,
        }
    }
}

/// How OCSP answers are signed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OcspPolicy {
    /// Validity of the certificate that signs the answers; renewed by itself at half of it. Nobody can revoke it, so keep it short; the CA may be away for half of it.
    #[serde(default = "signer_validity")]
    #[x_kube(validation = rules::more_than_zero())]
    pub signer_validity: Duration,
}

fn signer_validity() -> Duration {
    Duration::days(14)
}

impl Default for OcspPolicy {
    fn default() -> Self {
        Self {
            signer_validity: signer_validity(),
        }
    }
}

/// What is known of a CA.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateAuthorityStatus {
    /// Subject key identifier, in lower-case hex; part of the CRL's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// The CA's certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub certificate: Option<String>,
    /// Certificates from the issuer up, without this one, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub chain: Option<String>,
    /// The request to be signed outside, PEM (source external).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub csr: Option<String>,
    /// Start of the certificate's validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub not_before: Option<Time>,
    /// End of the certificate's validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub not_after: Option<Time>,
    /// Serial number of the certificate, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub serial: Option<String>,
    /// SHA-256 of the certificate, as 64 lower-case hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sha256: Option<String>,
    /// Published CRLs, one for each partition; the 50 that end last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["partition"]))]
    pub crls: Vec<CrlStatus>,
    /// The object that holds the CRLs, too, as spec.publication names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_object: Option<CrlObject>,
    /// The certificate that signs OCSP answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp_signer: Option<OcspSignerStatus>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Conditions; Ready says whether the CA issues.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// One published CRL.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrlStatus {
    /// Month in which the certificates of this partition end (YYYY-MM, UTC); ca for subordinate CAs, full for all; with .delta what is new in it.
    #[schemars(length(max = 16))]
    pub partition: String,
    /// CRL number.
    #[schemars(range(min = 0))]
    pub number: i64,
    /// How many certificates it lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub entries: Option<i64>,
    /// When it ends: the next one is made well before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub next_update: Option<Time>,
}

/// An object that CRLs are written into.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrlObject {
    /// ConfigMap or Secret.
    pub kind: CrlObjectKind,
    /// Its name, in the namespace of the CertificateAuthority.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A kind of object that CRLs are written into.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum CrlObjectKind {
    /// `data` and `binaryData`.
    ConfigMap,
    /// `data`.
    Secret,
}

/// The certificate that signs a CA's OCSP answers; it stands with its key in the Secret `<name of the CA>-ocsp`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OcspSignerStatus {
    /// Serial number, in lower-case hex.
    #[schemars(length(max = 64))]
    pub serial: String,
    /// End of its validity.
    #[schemars(schema_with = "crate::schema::time")]
    pub not_after: Time,
}
