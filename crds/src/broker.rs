//! `Broker`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CertificateStatus, Duration, LocalRef, SecretKeyRef, rules};

/// An MQTT broker that devices and the controller talk over.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "certwave.dev",
    version = "v1alpha1",
    kind = "Broker",
    doc = "An MQTT broker that devices and the controller talk over, with mutual TLS.",
    namespaced,
    status = "BrokerStatus",
    shortname = "broker",
    category = "certwave",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether it can be used."}"#,
    printcolumn = r#"{"name":"Connected","type":"boolean","jsonPath":".status.connected","description":"Whether the controller is connected."}"#,
    printcolumn = r#"{"name":"Id","type":"string","jsonPath":".spec.id","description":"By which metrics, alerts and messages name it."}"#,
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.url","description":"Where devices connect."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Why it is ready or not."}"#,
    printcolumn = r#"{"name":"Adapter","type":"string","jsonPath":".spec.adapter","priority":1,"description":"Kind of broker."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.issuerRef) || (has(self.credential) && has(self.controlSecretRef))").message("set issuerRef, or both credential and controlSecretRef: the controller needs a client and a control certificate"),
    validation = Rule::new("has(self.issuerRef) || !has(self.serverCertificate)").message("serverCertificate needs issuerRef, the CA that issues it"),
    validation = Rule::new("self.adapter == 'Mosquitto' || !has(self.mosquitto)").message("mosquitto is for adapter Mosquitto only"),
    validation = Rule::new("(self.adapter == 'Nats') == has(self.nats)").message("set nats when adapter is Nats, and only then"),
    validation = Rule::new("(self.adapter == 'Emqx') == has(self.emqx)").message("set emqx when adapter is Emqx, and only then"),
    validation = rules::unchanged(&["issuerRef"], "issuerRef cannot change: devices would refuse everything that a control certificate of a CA they do not trust yet signs; create another Broker")
)]
pub struct BrokerSpec {
    /// Immutable id, a DNS label. Devices are known by (broker id, deviceId), in every message and in the ledger.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(
        validation = rules::dns_label("id"),
        validation = rules::immutable("id cannot change: every device's identity contains it")
    )]
    pub id: String,
    /// Where devices and the controller connect: mqtts://host:port.
    #[schemars(length(max = 300))]
    #[x_kube(validation = rules::mqtt_url("url"))]
    pub url: String,
    /// Where holders of a claim connect, and the controller to hear them, mqtts://host:port of a second broker; claims choose their client ids, and could end others' connections to the first. Needed for claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    #[x_kube(validation = rules::mqtt_url("claimsUrl"))]
    pub claims_url: Option<String>,
    /// What the broker's server certificate must chain to.
    pub trust: BrokerTrust,
    /// CA that issues the controller's client certificate, its control certificate and, where asked for, the broker's server certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<LocalRef>,
    /// A client certificate of your own for the controller, instead of one from issuerRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<BrokerCredential>,
    /// Secret with tls.crt and tls.key of a control certificate of your own, instead of one from issuerRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_secret_ref: Option<LocalRef>,
    /// First part of every topic; no wildcards, no '/' at the ends.
    #[serde(default = "topic_prefix")]
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(
        validation = rules::topic_prefix(),
        validation = rules::immutable("topicPrefix cannot change: devices would no longer be heard")
    )]
    pub topic_prefix: String,
    /// Kind of broker, for its access rules and how it hears of revocations: Mosquitto, Nats, Emqx, or Generic (any broker with MQTT 3.1.1 and mutual TLS; its sessions cannot be closed).
    #[serde(default)]
    pub adapter: Adapter,
    /// How many nodes the broker has: its door is shut when as many have loaded a revocation, each under a name of its own.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub nodes: i32,
    /// What only a Mosquitto has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mosquitto: Option<MosquittoSettings>,
    /// What only NATS has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSettings>,
    /// What only EMQX has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emqx: Option<EmqxSettings>,
    /// Namespaces whose Fleets may use this broker.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
    /// A server certificate for the broker, issued by issuerRef into a kubernetes.io/tls Secret and renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<ServerCertificate>,
}

fn topic_prefix() -> String {
    "certwave".to_owned()
}

fn one() -> i32 {
    1
}

/// What a server certificate must chain to: exactly one.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::exactly_one(&["issuerRef", "secretRef", "caBundle"]))]
pub struct BrokerTrust {
    /// A CertificateAuthority of this namespace; its root is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<LocalRef>,
    /// A Secret with PEM certificates; the key is ca.crt where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// Trust anchors, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = rules::pem("caBundle", "CERTIFICATE"))]
    pub ca_bundle: Option<String>,
}

/// A client certificate from a Secret.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerCredential {
    /// The Secret, with tls.crt and tls.key; the certificate's common name must be ~controller.
    pub secret_ref: LocalRef,
}

/// A kind of broker.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum Adapter {
    /// Eclipse Mosquitto.
    #[default]
    Mosquitto,
    /// Any broker with MQTT 3.1.1 and mutual TLS; it reports nothing.
    Generic,
    /// A NATS server or cluster, by its MQTT listeners.
    Nats,
    /// EMQX 5.
    Emqx,
}

/// How NATS is spoken to, over its system account.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatsSettings {
    /// The client port of one of the servers: tls://host:port. The server's certificate must chain to spec.trust.
    #[schemars(length(max = 300))]
    #[x_kube(validation = rules::nats_url("url"))]
    pub url: String,
    /// A Secret with username and password, or with user.creds (JWT and key): a user of the system account.
    pub secret_ref: LocalRef,
    /// How the servers name a device's user, where each device has one, such as CN={deviceId} with verify_and_map. A session under another client id is found by it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    #[x_kube(validation = rules::names_the_device("user"))]
    pub user: Option<String>,
}

/// How EMQX is spoken to, by its REST API.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmqxSettings {
    /// Base URL of the REST API, without /api/v5, such as `https://emqx.example.com:18084`. Over HTTPS, its certificate must chain to spec.trust or to a CA of the controller's system.
    #[schemars(length(max = 300))]
    #[x_kube(validation = rules::http_base_url("url"))]
    pub url: String,
    /// A Secret with key and secret of an API key.
    pub secret_ref: LocalRef,
    /// How long a device that is shut out may not come back whatever its certificate: longer than crl_cache.refresh_interval of EMQX, which goes by its copy of the CRL until then.
    #[serde(default = "ban")]
    #[x_kube(validation = rules::more_than_zero())]
    pub ban: Duration,
}

fn ban() -> Duration {
    Duration::from_secs(16 * 60)
}

/// What only a Mosquitto has.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MosquittoSettings {
    /// `certwave crl-sync` runs beside each node: what is revoked is refused by the broker, and live sessions are closed. No leaf leaves before every node has loaded the CRL of its partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_sync: Option<CrlSync>,
}

/// How `certwave crl-sync` is watched.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrlSync {
    /// A node that was not heard for so long is late (condition DoorCurrent).
    #[serde(default = "late_after")]
    #[x_kube(validation = rules::more_than_zero())]
    pub late_after: Duration,
}

fn late_after() -> Duration {
    Duration::from_secs(60)
}

/// Which namespaces may use a broker.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)").message("set selector when from is Selector, and only then"))]
pub struct AllowedNamespaces {
    /// Which namespaces: Same (the broker's own), All, or Selector (those that selector selects).
    #[serde(default)]
    pub from: NamespacesFrom,
    /// Labels of the namespaces (from: Selector).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum NamespacesFrom {
    /// The broker's own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// The namespaces that the selector selects.
    Selector,
}

/// A server certificate for the broker.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.dnsNames) && self.dnsNames.size() > 0) || (has(self.ipAddresses) && self.ipAddresses.size() > 0)").message("name the broker in dnsNames or ipAddresses"))]
pub struct ServerCertificate {
    /// The Secret that is written: tls.crt with chain, tls.key, ca.crt.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// DNS names of the broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = rules::dns_names())]
    pub dns_names: Vec<String>,
    /// IP addresses of the broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 2, max = 45)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = rules::ip_addresses())]
    pub ip_addresses: Vec<String>,
    /// Validity; renewed when a third is left.
    #[serde(default = "server_validity")]
    #[x_kube(validation = rules::more_than_zero())]
    pub validity: Duration,
}

fn server_validity() -> Duration {
    Duration::days(90)
}

/// What is known of a broker.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// Whether the controller is connected.
    #[serde(default)]
    pub connected: bool,
    /// The certificate whose key signs what devices are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_certificate: Option<CertificateStatus>,
    /// The certificate by which the controller connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateStatus>,
    /// The server certificate that was issued for the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<CertificateStatus>,
    /// What each node says of its door.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<BrokerNode>,
    /// SHA-256 of the anchors that the server certificate may chain to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub anchors: Vec<String>,
    /// Why the last connection failed or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub last_error: Option<String>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Conditions; Ready says whether Fleets can use the broker, DoorCurrent whether every node goes by the CRLs published last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What a node of a broker says of its door.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerNode {
    /// As it calls itself.
    #[schemars(length(max = 40))]
    pub name: String,
    /// When it was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub last_report: Option<Time>,
    /// The CRLs that it goes by; of many, the first 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub crls: Vec<LoadedCrl>,
    /// What keeps it from loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub error: Option<String>,
}

/// A CRL that a node goes by.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadedCrl {
    /// Key id of the issuer, in lower-case hex.
    #[schemars(length(max = 64))]
    pub issuer: String,
    /// The partition.
    #[schemars(length(max = 64))]
    pub partition: String,
    /// The CRL's number.
    #[schemars(range(min = 0))]
    pub number: i64,
}
