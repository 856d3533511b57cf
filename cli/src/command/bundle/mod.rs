//! `bundle`: what support needs, in one archive, without secrets.
//!
//! Secrets are never asked for. What is collected goes through `scrub` nevertheless: environments of pods, annotations, logs
//! and URLs may hold what nobody meant to hand out.

mod scrub;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use super::doctor;
use crate::history::ControllerNamespace;
use crate::output::{Show as _, print, say};
use crate::session::Session;
use crate::{Error, Result};

/// What belongs to Certwave, as the chart labels it.
const OURS: &str = "app.kubernetes.io/name=certwave";
/// The last lines of each log.
const LOG_LINES: i64 = 5000;
/// Devices that are taken; counts and events tell of the others.
const DEVICES: u32 = 500;

/// `bundle`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The archive; `certwave-bundle-<time>.tar.gz` where left out.
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
    /// Of all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    #[command(flatten)]
    controller: ControllerNamespace,
}

/// Files by their names, and what could not be had.
#[derive(Default)]
struct Collected {
    files: Vec<(String, String)>,
    missing: Vec<String>,
}

impl Collected {
    /// What an object or list of objects looks like without secrets.
    fn objects(&mut self, name: &str, found: Result<Value>) -> Result<()> {
        match found {
            Ok(mut value) => {
                scrub::value(&mut value);
                let text = serde_saphyr::to_string(&value).map_err(|error| Error::Api(error.to_string()))?;
                self.files.push((name.to_owned(), text));
            }
            Err(error) => self.missing.push(format!("{name}: {error}")),
        }
        Ok(())
    }

    fn text(&mut self, name: &str, found: Result<String>) {
        match found {
            Ok(text) => self.files.push((name.to_owned(), scrub::text(&text))),
            Err(error) => self.missing.push(format!("{name}: {error}")),
        }
    }
}

/// `bundle`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let now = Timestamp::now();
    let path = arguments.file.clone().unwrap_or_else(|| {
        let time = now.strftime("%Y%m%dT%H%M%SZ");
        PathBuf::from(format!("certwave-bundle-{time}.tar.gz"))
    });
    // Before anything is asked for; and never over another file.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(Error::file(&path))?;
    let collected = collect(session, arguments).await?;
    let archive = pack(&collected, now).map_err(Error::file(&path))?;
    file.write_all(&archive).map_err(Error::file(&path))?;
    for missing in &collected.missing {
        say(&format!("note: not in it: {missing}"));
    }
    print(&format!("{}\n", path.display()))?;
    say(
        "It holds no Secrets, keys or passwords, but names of devices, sites and hosts: look through it before you send it.",
    );
    Ok(())
}

async fn collect(session: &Session, arguments: &Arguments) -> Result<Collected> {
    let mut collected = Collected::default();
    let controller = arguments.controller.name.as_str();
    let all = arguments.all_namespaces;
    // Where the API server cannot be reached there is nothing to collect.
    let checkup = doctor::examine(session, all, controller).await?;
    collected.text("doctor.txt", Ok(checkup.table(true)));
    let version = session.client().apiserver_version().await.map_err(Error::from);
    let about = version.map(|version| json!({ "plugin": env!("CARGO_PKG_VERSION"), "apiServer": version }));
    collected.objects("versions.yaml", about)?;
    for crd in certwave_crds::all().map_err(|error| Error::Api(error.to_string()))? {
        let field = |path: &str| crd.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = ApiResource {
            group: certwave_crds::GROUP.to_owned(),
            version: certwave_crds::VERSION.to_owned(),
            api_version: format!("{}/{}", certwave_crds::GROUP, certwave_crds::VERSION),
            kind: field("/spec/names/kind"),
            plural: field("/spec/names/plural"),
        };
        let objects = of_kind(session, &kind, all).await;
        collected.objects(&format!("objects/{}.yaml", kind.plural), objects)?;
    }
    let events: Api<Event> = session.api_of(all);
    collected.objects("events.yaml", list(&events, &ListParams::default().limit(2000)).await)?;
    controllers(session, controller, &mut collected).await?;
    Ok(collected)
}

async fn of_kind(session: &Session, kind: &ApiResource, all: bool) -> Result<Value> {
    let api: Api<DynamicObject> = if all {
        Api::all_with(session.client(), kind)
    } else {
        Api::namespaced_with(session.client(), session.namespace(), kind)
    };
    list(&api, &ListParams::default().limit(DEVICES)).await
}

async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<Value>
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let found = api.list(params).await?;
    serde_json::to_value(found).map_err(|error| Error::Api(error.to_string()))
}

/// How the controller runs, and what it has logged.
async fn controllers(session: &Session, namespace: &str, collected: &mut Collected) -> Result<()> {
    let client = session.client();
    let ours = ListParams::default().labels(OURS);
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    collected.objects("controller/leases.yaml", list(&leases, &ListParams::default()).await)?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    collected.objects("controller/deployments.yaml", list(&deployments, &ours).await)?;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    collected.objects("controller/statefulsets.yaml", list(&sets, &ours).await)?;
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    collected.objects(
        "controller/events.yaml",
        list(&events, &ListParams::default().limit(2000)).await,
    )?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    collected.objects("controller/pods.yaml", list(&pods, &ours).await)?;
    let Ok(running) = pods.list(&ours).await else {
        return Ok(());
    };
    for pod in running {
        let name = pod.name_any();
        for container in pod.spec.into_iter().flat_map(|spec| spec.containers) {
            for previous in [false, true] {
                let params = LogParams {
                    container: Some(container.name.clone()),
                    tail_lines: Some(LOG_LINES),
                    timestamps: true,
                    previous,
                    ..LogParams::default()
                };
                let log = pods.logs(&name, &params).await.map_err(Error::from);
                let suffix = if previous { ".previous" } else { "" };
                // Most containers have not ended before.
                if log.is_ok() || !previous {
                    collected.text(&format!("controller/logs/{name}.{}{suffix}.log", container.name), log);
                }
            }
        }
    }
    Ok(())
}

fn pack(collected: &Collected, now: Timestamp) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let missing = collected.missing.join("\n") + "\n";
    let files = collected
        .files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    for (name, text) in files.chain([("missing.txt", missing.as_str())]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now.as_second().unsigned_abs());
        header.set_cksum();
        archive.append_data(&mut header, format!("certwave-bundle/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}
