//! From a Broker's spec to the settings of its doors' adapter.

use certwave_crds::{Adapter, Broker, EmqxSettings, LocalRef, NatsSettings};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;

use crate::door::{Abilities, DoorSettings, Hidden, emqx, mosquitto, nats};
use crate::reconcile::error::Result;
use crate::reconcile::secrets;
use crate::reconcile::shared::Shared;
use crate::reconcile::status::Verdict;

/// Keys of the Secrets that adapters log in with.
const USERNAME: &str = "username";
const PASSWORD: &str = "password";
const CREDENTIALS: &str = "user.creds";
const API_KEY: &str = "key";
const API_SECRET: &str = "secret";

/// How the broker hears of revocations, or what is missing for that.
pub(super) async fn settings(shared: &Shared, broker: &Broker) -> Result<std::result::Result<DoorSettings, Verdict>> {
    let spec = &broker.spec;
    let crl_sync = spec.mosquitto.as_ref().and_then(|settings| settings.crl_sync.as_ref());
    Ok(match (spec.adapter, crl_sync, &spec.nats, &spec.emqx) {
        (Adapter::Mosquitto, Some(sync), ..) => Ok(DoorSettings::CrlSync {
            late_after: sync.late_after.as_millis(),
        }),
        (Adapter::Nats, _, Some(settings), _) => {
            let secret = secret(shared, broker, &settings.secret_ref).await?;
            secret.and_then(|secret| of_nats(settings, &secret).map(DoorSettings::Nats))
        }
        (Adapter::Emqx, _, _, Some(settings)) => {
            let secret = secret(shared, broker, &settings.secret_ref).await?;
            secret.and_then(|secret| of_emqx(settings, &secret).map(DoorSettings::Emqx))
        }
        _ => Ok(DoorSettings::None),
    })
}

/// What the adapter can do by the spec alone, and whether the broker may go by CRLs.
pub(super) fn declared(broker: &Broker) -> (Abilities, bool) {
    let spec = &broker.spec;
    let crl_sync = spec.mosquitto.as_ref().and_then(|settings| settings.crl_sync.as_ref());
    match (spec.adapter, crl_sync, &spec.nats, &spec.emqx) {
        (Adapter::Mosquitto, Some(_), ..) => (mosquitto::ABILITIES, true),
        (Adapter::Nats, _, Some(_), _) => (nats::ABILITIES, false),
        (Adapter::Emqx, _, _, Some(_)) => (emqx::ABILITIES, true),
        _ => (DoorSettings::None.abilities(), true),
    }
}

async fn secret(
    shared: &Shared,
    broker: &Broker,
    reference: &LocalRef,
) -> Result<std::result::Result<Secret, Verdict>> {
    let api: Api<Secret> = shared.api(&broker.namespace().unwrap_or_default());
    let found = api.get_opt(&reference.name).await?;
    Ok(found.ok_or_else(|| {
        let message = format!(
            "create the Secret {} with the broker's login for the controller",
            reference.name
        );
        Verdict::no("SecretNotFound", message)
    }))
}

fn of_nats(settings: &NatsSettings, secret: &Secret) -> std::result::Result<nats::Settings, Verdict> {
    let text = |key| secrets::text(secret, key);
    let login = match (text(CREDENTIALS), text(USERNAME), text(PASSWORD)) {
        (Some(credentials), ..) => nats::Login::Credentials(Hidden::from(credentials)),
        (None, Some(user), Some(password)) => nats::Login::Password {
            user,
            password: Hidden::from(password),
        },
        _ => return Err(incomplete(secret, "username and password, or user.creds")),
    };
    Ok(nats::Settings {
        url: settings.url.clone(),
        login,
        user: settings.user.clone(),
        version: secret.resource_version().unwrap_or_default(),
    })
}

fn of_emqx(settings: &EmqxSettings, secret: &Secret) -> std::result::Result<emqx::Settings, Verdict> {
    let text = |key| secrets::text(secret, key);
    let (Some(key), Some(value)) = (text(API_KEY), text(API_SECRET)) else {
        return Err(incomplete(secret, "key and secret of an API key"));
    };
    Ok(emqx::Settings {
        url: settings.url.clone(),
        key,
        secret: Hidden::from(value),
        ban: settings.ban.as_std(),
        version: secret.resource_version().unwrap_or_default(),
    })
}

fn incomplete(secret: &Secret, wanted: &str) -> Verdict {
    let message = format!("the Secret {} must hold {wanted}", secret.name_any());
    Verdict::no("SecretIncomplete", message)
}
