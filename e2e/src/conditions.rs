//! Conditions of custom resources, and waiting for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use certwave_crds::{Broker, Fleet};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::Api;
use serde::de::DeserializeOwned;

use crate::wait::wait_for;

/// Those of a Broker, once it has a status.
pub fn of_broker(broker: &Broker) -> Option<&Vec<Condition>> {
    Some(&broker.status.as_ref()?.conditions)
}

/// Those of a Fleet, once it has a status.
pub fn of_fleet(fleet: &Fleet) -> Option<&Vec<Condition>> {
    Some(&fleet.status.as_ref()?.conditions)
}

/// Waits until the object has this condition with status `True`; `of` finds an object's conditions.
///
/// # Errors
/// As [`wait_for`].
pub async fn wait<K>(
    objects: &Api<K>,
    name: &str,
    wanted: &str,
    deadline: Duration,
    of: impl Fn(&K) -> Option<&Vec<Condition>> + Copy,
) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let what = format!("{wanted} of {} {name}", K::kind(&K::DynamicType::default()));
    wait_for(&what, deadline, || async {
        let object = objects.get(name).await?;
        let all = of(&object).context("no status yet")?;
        let found = all.iter().find(|condition| condition.type_ == wanted);
        let found = found.context("no such condition yet")?;
        ensure!(found.status == "True", "{}: {}", found.reason, found.message);
        Ok(())
    })
    .await
}
