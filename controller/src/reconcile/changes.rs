//! Watches that begin anew where the API server no longer has what came since, and what a new listing says of objects that are gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};

use certwave_core::model::ObjectRef as Name;
use futures::{Stream, StreamExt as _, stream};
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Config, Error, Event};
use serde::de::DeserializeOwned;

use super::drive::name;

/// HTTP 410, Gone.
const GONE: u16 = 410;

/// All changes of objects, for ever, as [`kube::runtime::watcher`] has them. That one lists everything anew where a stream says that what came
/// since is gone, but not where the API server refuses with it to begin the stream; clients have to understand both (*Efficient
/// detection of changes* in Kubernetes' API concepts).
pub(super) fn changes<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let begin = move || kube::runtime::watcher(api.clone(), config.clone()).boxed();
    let mut events = begin();
    stream::poll_fn(move |context| {
        let event = ready!(events.poll_next_unpin(context));
        if matches!(&event, Some(Err(Error::WatchStartFailed(kube::Error::Api(status)))) if status.code == GONE) {
            events = begin();
        }
        Poll::Ready(event)
    })
}

/// Keeps a store up to date with what a watch shows. `gone` hears of objects that were there before a new listing and are not in it: nobody
/// else says so of what was deleted while nothing was heard.
pub(super) fn reflected<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    writer: Writer<K>,
    gone: impl Fn(Name),
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    let store = writer.as_reader();
    let before = Arc::new(Mutex::new(Vec::new()));
    let (known, found) = (Arc::clone(&before), store.clone());
    let complete = |event: &watcher::Result<Event<K>>| matches!(event, Ok(Event::InitDone));
    events
        .inspect(move |event| {
            if complete(event) {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = found.state();
            }
        })
        .reflect(writer)
        .inspect(move |event| {
            if complete(event) {
                let before = std::mem::take(&mut *before.lock().unwrap_or_else(PoisonError::into_inner));
                let missing = before
                    .iter()
                    .filter(|object| store.get(&ObjectRef::from_obj(&***object)).is_none());
                missing.for_each(|object| gone(name(&**object)));
            }
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_crds::Broker;
    use kube::client::Body;

    use super::*;

    /// What an API server answers that has nothing of what came before.
    fn answer(query: &str) -> (u16, &'static str) {
        if query.contains("watch=") {
            return (
                410,
                r#"{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","message":"too old resource version","code":410}"#,
            );
        }
        (
            200,
            r#"{"apiVersion":"certwave.dev/v1alpha1","kind":"BrokerList","metadata":{"resourceVersion":"7"},"items":[]}"#,
        )
    }

    #[tokio::test]
    async fn all_is_listed_anew_where_a_watch_is_refused_as_too_old() {
        let service = tower::service_fn(|request: http::Request<Body>| {
            let (code, body) = answer(request.uri().query().unwrap_or_default());
            let response = http::Response::builder()
                .status(code)
                .body(Body::from(body.as_bytes().to_vec()));
            async move { response }
        });
        let api: Api<Broker> = Api::all(kube::Client::new(service, "default"));
        let mut events = Box::pin(changes(api, Config::default()));
        let mut listings = 0;
        let mut refused = 0;
        while listings < 2 {
            let event = events.next().await;
            assert!(event.is_some(), "it is for ever");
            match event {
                Some(Ok(Event::InitDone)) => listings += 1,
                Some(Err(_)) => refused += 1,
                _ => {}
            }
            assert!(refused <= 1, "it goes on from where nothing is any more");
        }
        assert_eq!(refused, 1, "whoever waits between attempts has to know");
    }

    #[tokio::test]
    async fn who_is_not_in_a_new_listing_is_told_to_be_gone() {
        let broker = |name: &str| {
            let mut broker: Broker = serde_json::from_value(serde_json::json!({
                "apiVersion": "certwave.dev/v1alpha1", "kind": "Broker",
                "metadata": {"name": name, "namespace": "plant"},
                "spec": {
                    "id": name, "url": "mqtts://broker.example.com:8883",
                    "trust": {"issuerRef": {"name": "root"}}, "issuerRef": {"name": "root"},
                },
            }))
            .unwrap();
            broker.metadata.resource_version = Some("1".to_owned());
            broker
        };
        let events = vec![
            Event::Init,
            Event::InitApply(broker("stays")),
            Event::InitApply(broker("goes")),
            Event::InitDone,
            Event::Apply(broker("comes")),
            Event::Init,
            Event::InitApply(broker("stays")),
            Event::InitApply(broker("comes")),
            Event::InitDone,
        ];
        let (_, writer) = kube::runtime::reflector::store();
        let gone = Mutex::new(Vec::new());
        let told = |object: Name| gone.lock().unwrap().push(object.name);
        let all: Vec<_> = reflected(stream::iter(events.into_iter().map(Ok)), writer, told)
            .collect()
            .await;
        assert_eq!(all.len(), 9, "all of it is passed on");
        assert_eq!(*gone.lock().unwrap(), ["goes"]);
    }
}
