//! From a Broker's spec to what a connection needs.

use std::net::IpAddr;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_crds::{Broker, BrokerTrust, LocalRef};
use certwave_pki::{LeafSubject, NameError, San, certificates_from_pem};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;
use rustls_pki_types::CertificateDer;

use super::credential::Credential;
use super::issued::{Wanted, keep};
use super::{Purpose, Resolved, door};
use crate::reconcile::authority::{Authority, known};
use crate::reconcile::error::Result;
use crate::reconcile::secrets::{self, ANCHORS};
use crate::reconcile::shared::Shared;
use crate::reconcile::status::Verdict;

/// Validity of the controller's own certificates.
const OWN_VALIDITY: Duration = Duration::from_hours(90 * 24);
/// The controller's name at every broker.
const CONTROLLER: &str = "~controller";

macro_rules! verdict {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(verdict) => return Ok(Err(verdict)),
        }
    };
}

/// Everything that the broker needs, or what is missing. `now` in Unix seconds.
pub(super) async fn resolve(
    shared: &Shared,
    broker: &Broker,
    now: i64,
) -> Result<std::result::Result<Resolved, Verdict>> {
    let spec = &broker.spec;
    let id = verdict!(
        spec.id
            .parse()
            .map_err(|e| Verdict::no("InvalidId", format!("spec.id: {e}")))
    );
    let (host, port) = verdict!(
        address(&spec.url)
            .ok_or_else(|| Verdict::no("InvalidURL", "spec.url must be mqtts://host:port, port 1 to 65535"))
    );
    let claims = match spec.claims_url.as_deref().map(address) {
        // One door for all, as if it were left out.
        Some(Some(claims)) if claims == (host.clone(), port) => None,
        Some(None) => {
            let message = "spec.claimsUrl must be mqtts://host:port, port 1 to 65535";
            return Ok(Err(Verdict::no("InvalidURL", message)));
        }
        claims => claims.flatten(),
    };
    let trust = verdict!(trust(shared, broker, &spec.trust).await?);
    let issuer_name = spec.issuer_ref.as_ref().map(|reference| local(broker, reference));
    let state = issuer_name.as_ref().and_then(|object| shared.authorities.get(object));
    let issuer = match &issuer_name {
        Some(object) => Some(verdict!(known(state.as_deref(), object, "spec.issuerRef"))),
        None => None,
    };
    let own = Own {
        shared,
        broker,
        issuer,
        now,
    };
    let client = spec.credential.as_ref().map(|credential| &credential.secret_ref);
    let client = verdict!(
        own.credential(client, Purpose::Client, "controller", CONTROLLER)
            .await?
    );
    let control_name = format!("~control.{}", spec.id);
    let control = spec.control_secret_ref.as_ref();
    let control = verdict!(
        own.credential(control, Purpose::Control, "control", &control_name)
            .await?
    );
    let server = verdict!(own.server().await?);
    let door = verdict!(door::settings(shared, broker).await?);
    Ok(Ok(Resolved {
        id,
        host,
        port,
        claims,
        nodes: usize::try_from(spec.nodes).unwrap_or(1),
        door,
        trust,
        client,
        control,
        server,
    }))
}

/// Host and port of `mqtts://host:port`; an IPv6 address stands in brackets and comes out without them.
fn address(url: &str) -> Option<(String, u16)> {
    let (host, port) = url.strip_prefix("mqtts://")?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |inner| inner.strip_suffix(']'))?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn local(broker: &Broker, reference: &LocalRef) -> ObjectRef {
    ObjectRef {
        namespace: broker.namespace().unwrap_or_default(),
        name: reference.name.clone(),
    }
}

async fn trust(
    shared: &Shared,
    broker: &Broker,
    trust: &BrokerTrust,
) -> Result<std::result::Result<Vec<CertificateDer<'static>>, Verdict>> {
    let (pem, place) = match (&trust.issuer_ref, &trust.secret_ref, &trust.ca_bundle) {
        (Some(reference), ..) => {
            let object = local(broker, reference);
            let state = shared.authorities.get(&object);
            return Ok(
                known(state.as_deref(), &object, "spec.trust.issuerRef").map(|authority| vec![authority.anchor()])
            );
        }
        (_, Some(reference), _) => {
            let api: Api<Secret> = shared.api(&broker.namespace().unwrap_or_default());
            let key = reference.key.as_deref().unwrap_or(ANCHORS);
            let place = format!("{key} of the Secret {}", reference.name);
            let text = api
                .get_opt(&reference.name)
                .await?
                .and_then(|secret| secrets::text(&secret, key));
            (
                verdict!(text.ok_or_else(|| Verdict::no("TrustNotFound", format!("there is no {place}")))),
                place,
            )
        }
        (.., bundle) => (bundle.clone().unwrap_or_default(), "spec.trust.caBundle".to_owned()),
    };
    let anchors = certificates_from_pem(&pem).filter(|all| !all.is_empty());
    Ok(anchors.ok_or_else(|| Verdict::no("InvalidTrust", format!("{place} holds no readable certificate"))))
}

/// The controller's own certificates for one broker.
struct Own<'a> {
    shared: &'a Shared,
    broker: &'a Broker,
    issuer: Option<&'a Authority>,
    now: i64,
}

impl Own<'_> {
    /// The one that a person gave, or else one from the issuer.
    async fn credential(
        &self,
        given: Option<&LocalRef>,
        purpose: Purpose,
        suffix: &str,
        common_name: &str,
    ) -> Result<std::result::Result<Credential, Verdict>> {
        if let Some(reference) = given {
            let api: Api<Secret> = self.shared.api(&self.broker.namespace().unwrap_or_default());
            let Some(secret) = api.get_opt(&reference.name).await? else {
                let message = format!(
                    "create the Secret {} with tls.crt and tls.key for {common_name}",
                    reference.name
                );
                return Ok(Err(Verdict::no("SecretNotFound", message)));
            };
            return Ok(Credential::read(&secret).and_then(|credential| credential.check(common_name, self.now)));
        }
        let issuer = verdict!(self.issuer());
        let subject = verdict!(LeafSubject::common_name(common_name).map_err(invalid));
        let secret = format!("{}-{suffix}", self.broker.name_any());
        let wanted = Wanted {
            purpose,
            secret,
            subject,
            validity: OWN_VALIDITY,
            issuer,
        };
        keep(self.shared, self.broker, wanted, self.now).await
    }

    /// The broker's server certificate, where one is asked for.
    async fn server(&self) -> Result<std::result::Result<Option<Credential>, Verdict>> {
        let Some(wanted) = &self.broker.spec.server_certificate else {
            return Ok(Ok(None));
        };
        let dns = wanted.dns_names.iter().map(|name| San::dns(name).map_err(invalid));
        let addresses = wanted.ip_addresses.iter().map(|text| {
            let address: std::result::Result<IpAddr, _> = text.parse();
            address
                .map(San::ip)
                .map_err(|_| Verdict::no("InvalidName", format!("{text:?} is not an IP address")))
        });
        let sans: Vec<San> = verdict!(dns.chain(addresses).collect());
        let first = wanted
            .dns_names
            .iter()
            .chain(&wanted.ip_addresses)
            .find(|name| name.len() <= 64);
        let common_name = first.map_or(self.broker.spec.id.as_str(), String::as_str);
        let issuer = verdict!(self.issuer());
        let wanted = Wanted {
            purpose: Purpose::Server,
            secret: wanted.secret_name.clone(),
            subject: verdict!(LeafSubject::server(common_name, sans).map_err(invalid)),
            validity: wanted.validity.as_std(),
            issuer,
        };
        Ok(keep(self.shared, self.broker, wanted, self.now).await?.map(Some))
    }

    fn issuer(&self) -> std::result::Result<&Authority, Verdict> {
        self.issuer
            .ok_or_else(|| Verdict::no("NoIssuer", "set spec.issuerRef: a certificate has to be issued"))
    }
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn invalid(error: NameError) -> Verdict {
    Verdict::no("InvalidName", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_host_and_port() {
        let some = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(address("mqtts://mqtt.example.com:8883"), some("mqtt.example.com", 8883));
        assert_eq!(address("mqtts://[::1]:8883"), some("::1", 8883));
        for bad in [
            "mqtt://h:1",
            "mqtts://h",
            "mqtts://h:0",
            "mqtts://h:65536",
            "mqtts://:1",
            "mqtts://[::1:1",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
