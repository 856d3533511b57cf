//! The API server: objects in memory behind the HTTP interface that the operator uses, with watches, conflicts and all.
//!
//! It knows what the operator uses of Kubernetes' API: reading, listing in pages, selectors, watching from a version on with bookmarks,
//! creating, replacing on a version, three kinds of patches, the status subresource, generations, preconditions of deletions. It
//! checks nothing by schemas, and apply replaces what its one manager writes.

mod patch;
mod request;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{BoxError, Service};

use crate::os;
use crate::weather::{Fate, Life, Place, Weather};
use request::Asked;
use store::{Event, Store};
pub use store::{Key, Refusal};

/// An answer takes at least so long, milliseconds.
const LATENCY: u64 = 1;
/// A watch without news says so after this long.
const BOOKMARKS: Duration = Duration::from_mins(1);

/// See the module.
pub struct ApiServer {
    store: Mutex<Store>,
    changed: Notify,
    weather: Arc<Weather>,
    schemas: String,
    faults: Mutex<Faults>,
}

/// What it does beside what it should.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// So many requests of a thousand are refused with 409, 429 or 500 before anything is done.
    pub refuse: u32,
    /// What watches show is so old at most, milliseconds.
    pub stale: u64,
    /// A mistake made on purpose: a write to a status is answered and not made.
    pub forgets_statuses: bool,
    /// A mistake made on purpose: watches leave some deletions and changes out.
    pub hides_changes: u32,
    /// A mistake made on purpose: each replica finds Leases of its own, and holds them.
    pub shares_leases: bool,
}

impl ApiServer {
    /// One without objects.
    ///
    /// # Errors
    /// When the CRDs' schemas cannot be written as JSON.
    pub fn new(weather: Arc<Weather>) -> anyhow::Result<Arc<Self>> {
        let mut schemas = serde_json::Map::new();
        for crd in certwave_crds::all()? {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
            let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            schema["x-kubernetes-group-version-kind"] =
                json!([{ "group": certwave_crds::GROUP, "version": certwave_crds::VERSION, "kind": kind }]);
            schemas.insert(kind, schema);
        }
        Ok(Arc::new(Self {
            store: Mutex::new(Store::default()),
            changed: Notify::new(),
            weather,
            schemas: json!({ "components": { "schemas": schemas } }).to_string(),
            faults: Mutex::default(),
        }))
    }

    /// What a process of the operator reaches it by.
    pub fn client(self: &Arc<Self>, life: &Arc<Life>) -> ToApi {
        ToApi {
            server: Arc::clone(self),
            life: Arc::clone(life),
        }
    }

    /// Has it do something wrong.
    pub fn misbehave(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was, but for the latest state: watches that are behind have to begin anew (410).
    pub fn compact(&self) {
        self.store().compact();
        self.changed.notify_waiters();
    }

    /// A person's word: creates an object.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn create(&self, object: Value) -> Result<Value, Refusal> {
        let key = Key::of(&object);
        let made = self.store().create(key, object, os::now_ms());
        self.changed.notify_waiters();
        made
    }

    /// A person's word: a merge patch of an object.
    ///
    /// # Errors
    /// When it is not there.
    pub fn merge(&self, key: &Key, change: &Value) -> Result<Value, Refusal> {
        let changed = self
            .store()
            .change(key, false, None, os::now_ms(), |object| patch::merge(object, change));
        self.changed.notify_waiters();
        changed
    }

    /// An object as it is.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.store().get(key)
    }

    /// All objects of a kind, by its plural.
    pub fn all(&self, plural: &str) -> Vec<Value> {
        self.store().all(plural)
    }

    async fn answer(
        self: Arc<Self>,
        life: Arc<Life>,
        request: Request<kube::client::Body>,
    ) -> Result<Response<Body>, BoxError> {
        life.goes_on().await;
        let place = Place::Api(life.replica);
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        if self.weather.there(place, LATENCY).await == Fate::Failed {
            life.goes_on().await;
            return Err("connection reset".into());
        }
        life.goes_on().await;
        let mut asked = Asked::of(&head, &body);
        if self.faults().shares_leases && asked.plural == "leases" {
            asked.apart(life.replica);
        }
        let answer = self.respond(&life, &asked);
        if self.weather.back(place).await == Fate::Failed {
            life.goes_on().await;
            return Err("connection reset before an answer".into());
        }
        life.goes_on().await;
        Ok(answer)
    }

    fn respond(self: &Arc<Self>, life: &Arc<Life>, asked: &Asked) -> Response<Body> {
        if asked.path.starts_with("/openapi/") {
            return whole(200, self.schemas.clone());
        }
        let faults = self.faults();
        if self.weather.chance(faults.refuse) {
            let codes: &[u16] = if asked.method.is_safe() {
                &[429, 500, 503]
            } else {
                &[409, 429, 500, 503, 504]
            };
            let code = codes[usize::try_from(self.weather.below(codes.len() as u64)).unwrap_or(0)];
            // Of a gateway's 504 nobody knows whether it was done.
            if code == 504 {
                let _ = self.store().answer(asked, os::now_ms());
                self.changed.notify_waiters();
            }
            return refused(&Refusal::new(code, "refused by the simulation"));
        }
        if asked.watch {
            return self.watch(life, asked);
        }
        if faults.forgets_statuses && asked.status && asked.method == Method::PATCH {
            let object = asked.key.as_ref().and_then(|key| self.get(key));
            return object.map_or_else(
                || refused(&Refusal::not_found()),
                |object| whole(200, object.to_string()),
            );
        }
        let answer = self.store().answer(asked, os::now_ms());
        if !asked.method.is_safe() {
            self.changed.notify_waiters();
        }
        match answer {
            Ok((code, value)) => whole(code, value.to_string()),
            Err(refusal) => refused(&refusal),
        }
    }

    fn watch(self: &Arc<Self>, life: &Arc<Life>, asked: &Asked) -> Response<Body> {
        let from = match asked.version {
            Some(from) if from >= self.store().compacted() => from,
            Some(_) => return refused(&Refusal::gone()),
            None => self.store().version(),
        };
        let watch = Watch {
            server: Arc::clone(self),
            life: Arc::clone(life),
            asked: asked.clone(),
            seen: from,
            until: tokio::time::Instant::now() + Duration::from_secs(asked.timeout),
            over: false,
        };
        let lines = stream::unfold(watch, |mut watch| async move {
            let bytes = watch.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), watch))
        });
        headed(200).body(Body::from_stream(lines)).unwrap_or_default()
    }
}

/// A watch that is open.
struct Watch {
    server: Arc<ApiServer>,
    life: Arc<Life>,
    asked: Asked,
    seen: u64,
    until: tokio::time::Instant,
    over: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        loop {
            let mut changed = std::pin::pin!(self.server.changed.notified());
            changed.as_mut().enable();
            let news = self.server.store().after(self.seen, &self.asked);
            let lines = match news {
                Err(refusal) => {
                    self.over = true;
                    line("ERROR", &refusal.status())
                }
                Ok((version, events)) => {
                    self.seen = version;
                    let hides = self.server.faults().hides_changes;
                    let shown = events.iter().filter(|_| !self.server.weather.chance(hides));
                    shown
                        .map(|Event { kind, object, .. }| line(kind, object))
                        .collect::<String>()
                }
            };
            if !lines.is_empty() {
                let place = Place::Api(self.life.replica);
                let stale = self.server.faults().stale;
                let late = if stale > 0 { self.server.weather.below(stale) } else { 1 };
                tokio::time::sleep(Duration::from_millis(late)).await;
                self.server.weather.passable(place).await;
                self.life.goes_on().await;
                // A connection that breaks now and then loses what was under way.
                let lose = self.server.weather.condition(place).lose;
                if self.server.weather.chance(lose) {
                    return None;
                }
                return Some(Bytes::from(lines));
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep(BOOKMARKS) => {
                    let mark = json!({
                        "apiVersion": self.asked.api_version, "kind": "Bookmark",
                        "metadata": { "resourceVersion": self.seen.to_string() },
                    });
                    self.server.weather.passable(Place::Api(self.life.replica)).await;
                    self.life.goes_on().await;
                    return Some(Bytes::from(line("BOOKMARK", &mark)));
                }
            }
        }
    }
}

fn line(kind: &str, object: &Value) -> String {
    let mut text = json!({ "type": kind, "object": object }).to_string();
    text.push('\n');
    text
}

fn headed(code: u16) -> http::response::Builder {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(os::servers_ms().unsigned_abs());
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .header("date", httpdate::fmt_http_date(now))
}

fn whole(code: u16, text: String) -> Response<Body> {
    headed(code).body(Body::from(text)).unwrap_or_default()
}

fn refused(refusal: &Refusal) -> Response<Body> {
    whole(refusal.code, refusal.status().to_string())
}

/// A process's way to the API server.
#[derive(Clone)]
pub struct ToApi {
    server: Arc<ApiServer>,
    life: Arc<Life>,
}

impl Service<Request<kube::client::Body>> for ToApi {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        Box::pin(Arc::clone(&self.server).answer(Arc::clone(&self.life), request))
    }
}
