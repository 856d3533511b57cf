//! Waiting for what the controller says.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::Result;
use crate::session::Session;

const LOOK_EVERY: Duration = Duration::from_millis(300);
/// The controller answers within a second or two; it may have to take over leadership first.
pub const ANSWER: Duration = Duration::from_secs(20);

/// Looks until `so` finds what it looks for; `None` when the time is over.
///
/// # Errors
/// Those of `look` and `so`.
pub async fn until<T, F, R>(
    patience: Duration,
    mut look: impl FnMut() -> F,
    mut so: impl FnMut(T) -> Result<Option<R>>,
) -> Result<Option<R>>
where
    F: Future<Output = Result<T>>,
{
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = so(look().await?)? {
            return Ok(Some(found));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the controller has taken up an object's present spec; the object then, `None` when it has not in time.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn heard<K>(session: &Session, object: &K, observed: impl Fn(&K) -> Option<i64>) -> Result<Option<K>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let (name, generation) = (object.meta().name.clone().unwrap_or_default(), object.meta().generation);
    let api = session.api::<K>();
    let look = || {
        let (api, name) = (api.clone(), name.clone());
        async move { Ok(api.get(&name).await?) }
    };
    until(ANSWER, look, |found: K| {
        Ok((observed(&found) >= generation).then_some(found))
    })
    .await
}
