//! Watches that begin anew where the API server no longer has what came since.

use std::task::{Poll, ready};

use futures::{Stream, StreamExt as _, stream};
use kube::api::Api;
use kube::runtime::watcher::{self, Config, Error, Event};
use serde::de::DeserializeOwned;

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

#[cfg(test)]
mod tests {
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
}
