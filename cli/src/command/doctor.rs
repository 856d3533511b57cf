//! `doctor`: looks for what is wrong, and says what to do.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use certwave_crds::GROUP;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, ObjectMeta, PostParams};
use kube::discovery::ApiResource;
use serde::Serialize;
use serde_json::Value;

use super::status::Objects;
use crate::finding::{self, Finding, Level};
use crate::history::ControllerNamespace;
use crate::judge::cluster::{self, CONTROLLER_NEEDS, NEEDS, Need};
use crate::output::{self, OutputArgument, Show};
use crate::session::Session;
use crate::{Error, Result};

/// The Lease that elects the leader.
const LEASE: &str = "certwave-controller";
/// The Lease of a broker, before its id.
const BROKER_LEASE: &str = "certwave-broker-";
/// Questions to the API server at the same time.
const AT_ONCE: usize = 8;
/// The pause between two looks.
const AGAIN: Duration = Duration::from_secs(2);

/// `doctor`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Of all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Look again for so many seconds while something is wrong: after an installation or an upgrade.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    #[command(flatten)]
    controller: ControllerNamespace,
    #[command(flatten)]
    output: OutputArgument,
}

/// What was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Checkup {
    pub(super) findings: Vec<Finding>,
}

impl Checkup {
    fn of(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl Show for Checkup {
    fn table(&self, _wide: bool) -> String {
        format!(
            "{}\n{} ok, {} warnings, {} faults, {} not known\n",
            finding::text(&self.findings),
            self.of(Level::Ok),
            self.of(Level::Warning),
            self.of(Level::Fault),
            self.of(Level::Unknown)
        )
    }

    fn names(&self) -> Vec<String> {
        let bad = self.findings.iter().filter(|finding| finding.level > Level::Ok);
        bad.map(|finding| finding.about.clone()).collect()
    }
}

/// `doctor`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let (all, controller) = (arguments.all_namespaces, arguments.controller.name.as_str());
    let end = Instant::now() + Duration::from_secs(arguments.wait);
    let mut checkup = examine(session, all, controller).await?;
    while checkup.of(Level::Fault) > 0 && Instant::now() < end {
        tokio::time::sleep(AGAIN).await;
        checkup = examine(session, all, controller).await?;
    }
    output::show(&checkup, arguments.output.format)?;
    if checkup.of(Level::Fault) > 0 {
        // It stands there already.
        return Err(Error::Found(String::new()));
    }
    Ok(())
}

/// Looks at everything. What may not be looked at is said; an API server that cannot be reached is an error.
pub(super) async fn examine(session: &Session, all: bool, controller: &str) -> Result<Checkup> {
    let mut findings = vec![clocks(session).await?];
    findings.extend(crds(session).await?);
    findings.push(rights(session).await?);
    let leases = match leases(session, controller).await {
        Ok(leases) => {
            findings.push(cluster::leader(leases.get(LEASE), controller, Timestamp::now()));
            let holder = leases
                .get(LEASE)
                .and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
            if let Some(pod) = holder.filter(|name| !name.is_empty()) {
                findings.extend(controllers_rights(session, controller, &pod).await?);
            }
            Some(leases)
        }
        Err(error) => {
            findings.push(unknown("controller", error)?);
            None
        }
    };
    let installed = findings
        .iter()
        .all(|finding| !finding.about.starts_with("CRD ") || finding.level != Level::Fault);
    if installed {
        match Objects::read(session, all).await {
            Ok(objects) => {
                let now = Timestamp::now();
                let mut judged = objects.judged(now);
                if let Some(leases) = &leases {
                    judged.extend(objects.brokers.iter().map(|broker| {
                        let lease = leases.get(&format!("{BROKER_LEASE}{}", broker.spec.id));
                        cluster::attended(broker, lease, controller, now)
                    }));
                }
                let place = if all {
                    "any namespace".to_owned()
                } else {
                    format!("namespace {}", session.namespace())
                };
                if judged.is_empty() {
                    findings.push(Finding::ok(
                        "objects",
                        format!("there are none in {place}; -n and -A say where to look"),
                    ));
                }
                findings.extend(judged);
            }
            Err(error) => findings.push(unknown("objects", error)?),
        }
    }
    Ok(Checkup { findings })
}

/// What could not be looked at, where that is by want of rights.
fn unknown(about: &str, error: Error) -> Result<Finding> {
    match error {
        Error::Unreachable(_) => Err(error),
        error => Ok(Finding::bad(
            Level::Unknown,
            about,
            format!("cannot be looked at: {error}"),
        )),
    }
}

/// The API server's clock, by the date of an answer.
async fn clocks(session: &Session) -> Result<Finding> {
    let request = http::Request::get("/version").body(kube::client::Body::empty());
    let request = request.map_err(|error| Error::Api(error.to_string()))?;
    let sent = Timestamp::now();
    let answer = session.client().send(request).await?;
    let heard = Timestamp::now();
    let date = answer
        .headers()
        .get(http::header::DATE)
        .and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::HttpDate::from_str(date).ok());
    let server = date.and_then(|date| Timestamp::try_from(std::time::SystemTime::from(date)).ok());
    Ok(match server {
        Some(server) => cluster::clock(server, sent, heard),
        None => Finding::bad(Level::Unknown, "clocks", "the API server's answers bear no date"),
    })
}

async fn crds(session: &Session) -> Result<Vec<Finding>> {
    let built = certwave_crds::all().map_err(|error| Error::Api(error.to_string()))?;
    // As they come, for a newer API server may know fields that this program does not.
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let api: Api<DynamicObject> = Api::all_with(session.client(), &kind);
    let mut findings = Vec::new();
    for crd in &built {
        let name = crd
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match api.get_opt(name).await.map_err(Error::from) {
            Ok(found) => {
                let found = found.map(|found| found.data);
                findings.push(cluster::crd(name, crd, found.as_ref()));
            }
            // Most people may not read CRDs; that they are served is seen by asking for the kind.
            Err(Error::Forbidden(_)) => findings.push(served(session, crd, name).await?),
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Whether a kind is served, for those who may not read CRDs.
async fn served(session: &Session, crd: &Value, name: &str) -> Result<Finding> {
    let field = |path: &str| crd.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = ApiResource {
        group: GROUP.to_owned(),
        version: certwave_crds::VERSION.to_owned(),
        api_version: format!("{GROUP}/{}", certwave_crds::VERSION),
        kind: field("/spec/names/kind"),
        plural: field("/spec/names/plural"),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(session.client(), session.namespace(), &kind);
    match api
        .list_metadata(&ListParams::default().limit(1))
        .await
        .map_err(Error::from)
    {
        Ok(_) => Ok(Finding::ok(format!("CRD {name}"), "served")),
        Err(Error::NotFound(_)) => Ok(cluster::crd(name, crd, None)),
        Err(error) => unknown(&format!("CRD {name}"), error),
    }
}

async fn rights(session: &Session) -> Result<Finding> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(session.client());
    let mut answers = Vec::new();
    for need in NEEDS {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes(need, session.namespace())),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        match reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(Error::from)
        {
            Ok(answer) => answers.push((*need, answer.status.is_some_and(|status| status.allowed))),
            Err(error) => return unknown("your rights", error),
        }
    }
    Ok(cluster::rights(&answers, session.namespace()))
}

fn attributes(need: &Need, namespace: &str) -> ResourceAttributes {
    let (resource, subresource) = need.resource.split_once('/').unwrap_or((need.resource, ""));
    ResourceAttributes {
        group: Some(need.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()).filter(|name| !name.is_empty()),
        verb: Some(need.verb.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    }
}

/// What the controller may do in this namespace, by the account of the pod that leads; nothing where that is no pod of this cluster.
async fn controllers_rights(session: &Session, controller: &str, pod: &str) -> Result<Option<Finding>> {
    const ABOUT: &str = "controller's rights";
    let pods: Api<Pod> = Api::namespaced(session.client(), controller);
    let account = match pods.get_opt(pod).await.map_err(Error::from) {
        Ok(found) => found.and_then(|pod| pod.spec?.service_account_name),
        Err(error) => return unknown(ABOUT, error).map(Some),
    };
    let Some(account) = account else { return Ok(None) };
    let user = format!("system:serviceaccount:{controller}:{account}");
    let reviews: Api<LocalSubjectAccessReview> = Api::namespaced(session.client(), session.namespace());
    let ask = |need: &'static Need| {
        let (reviews, user) = (reviews.clone(), user.clone());
        async move {
            let review = LocalSubjectAccessReview {
                metadata: ObjectMeta {
                    namespace: Some(session.namespace().to_owned()),
                    ..ObjectMeta::default()
                },
                spec: SubjectAccessReviewSpec {
                    resource_attributes: Some(attributes(need, session.namespace())),
                    user: Some(user),
                    ..SubjectAccessReviewSpec::default()
                },
                ..LocalSubjectAccessReview::default()
            };
            let answer = reviews.create(&PostParams::default(), &review).await?;
            Ok((*need, answer.status.is_some_and(|status| status.allowed)))
        }
    };
    let asked = futures::stream::iter(CONTROLLER_NEEDS).map(ask).buffered(AT_ONCE);
    match asked.try_collect::<Vec<_>>().await {
        Ok(answers) => Ok(Some(cluster::controllers_rights(
            &answers,
            &account,
            session.namespace(),
        ))),
        Err(error) => unknown(ABOUT, error).map(Some),
    }
}

/// The Leases beside the controller, by name.
async fn leases(session: &Session, namespace: &str) -> Result<BTreeMap<String, Lease>> {
    let leases: Api<Lease> = Api::namespaced(session.client(), namespace);
    let all = leases.list(&ListParams::default()).await?;
    Ok(all.into_iter().map(|lease| (lease.name_any(), lease)).collect())
}
