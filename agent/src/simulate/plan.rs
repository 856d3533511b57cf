//! Which devices there are, and what each is told before it starts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use certwave_protocol::ids::{DeviceId, Fingerprint};
use certwave_protocol::message::Der;

use super::args::SimulateArgs;
use super::fault::Fault;
use crate::algorithm::Algorithm;
use crate::claim::Claim;
use crate::machine::Config;
use crate::mqtt::Network;
use crate::setup::Setup;
use crate::store::read_certificates;
use crate::trust::Trusts;

/// What the arguments say of the devices, with the files that they name.
pub(super) struct Plan<'a> {
    args: &'a SimulateArgs,
    claims: Claims,
    anchors: Option<Vec<Der>>,
    trusts: Arc<Trusts>,
}

impl<'a> Plan<'a> {
    /// Reads the claims and the first trust bundle.
    pub(super) fn read(args: &'a SimulateArgs) -> anyhow::Result<Self> {
        Ok(Self {
            args,
            claims: Claims::load(args)?,
            anchors: args.trust.as_deref().map(load_anchors).transpose()?,
            trusts: Arc::default(),
        })
    }

    /// What device `id` is told.
    pub(super) fn setup(&self, id: &DeviceId, faults: &[Fault]) -> anyhow::Result<Setup> {
        let args = self.args;
        let claim = self.claims.for_device(id);
        let from_claim = claim.as_deref();
        let clock_offset = faults.iter().find_map(|f| match f {
            Fault::Clock(offset) => Some(*offset),
            _ => None,
        });
        Ok(Setup {
            config: Config {
                device: id.clone(),
                broker: args
                    .broker_id
                    .clone()
                    .or_else(|| from_claim.map(|c| c.broker.clone()))
                    .context("--broker-id or a claim is needed")?,
                agent: concat!("certwave-agent simulate ", env!("CARGO_PKG_VERSION")).to_owned(),
                claim: claim.is_some(),
                accepts_jobs: !faults.contains(&Fault::Reject),
                algorithms: Algorithm::ALL.to_vec(),
                beat: args.beat,
            },
            url: args
                .broker_url
                .clone()
                .or_else(|| from_claim.map(|c| c.url.clone()))
                .context("--broker-url or a claim is needed")?,
            prefix: args
                .topic_prefix
                .clone()
                .or_else(|| from_claim.map(|c| c.prefix.clone()))
                .unwrap_or_else(|| certwave_protocol::topic::DEFAULT_PREFIX.to_owned()),
            anchors: self
                .anchors
                .clone()
                .or_else(|| from_claim.map(|c| c.anchors.clone()))
                .context("--trust or a claim is needed")?,
            claim,
            backoff: (Duration::from_secs(1), Duration::from_secs(args.backoff_max.max(1))),
            keep_alive: args.keep_alive,
            trusts: Arc::clone(&self.trusts),
            clock_offset: clock_offset.unwrap_or(0),
            dial: Arc::new(Network),
        })
    }
}

struct Claims {
    bound: HashMap<DeviceId, Arc<Claim>>,
    shared: Option<Arc<Claim>>,
}

impl Claims {
    fn load(args: &SimulateArgs) -> anyhow::Result<Self> {
        let mut files = args.claim.clone();
        if let Some(dir) = &args.claim_dir {
            for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "json") {
                    files.push(path);
                }
            }
            files.sort();
        }
        let mut claims = Self {
            bound: HashMap::new(),
            shared: None,
        };
        for file in files {
            let mut claim = Claim::load(&file).with_context(|| format!("claim {}", file.display()))?;
            if let Some(url) = &args.claims_url {
                claim.claims_url = url.clone();
            }
            match claim.device.clone() {
                Some(device) => claims.bound.insert(device, Arc::new(claim)),
                None => claims.shared.replace(Arc::new(claim)),
            };
        }
        Ok(claims)
    }

    fn for_device(&self, id: &DeviceId) -> Option<Arc<Claim>> {
        self.bound.get(id).or(self.shared.as_ref()).cloned()
    }
}

/// The devices' names, in order.
pub(super) fn device_ids(args: &SimulateArgs) -> anyhow::Result<Vec<DeviceId>> {
    let Some(file) = &args.ids_from else {
        let digits = args.digits;
        return (1..=args.count)
            .map(|n| Ok(format!("{}{n:0digits$}", args.prefix_name).parse()?))
            .collect();
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|l| l.parse().with_context(|| l.to_owned()))
        .collect()
}

fn load_anchors(file: &Path) -> anyhow::Result<Vec<Der>> {
    let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let anchors: Vec<_> = read_certificates(&pem)
        .map_err(anyhow::Error::msg)?
        .iter()
        .map(|c| Der(c.to_vec()))
        .collect();
    if anchors.is_empty() {
        bail!("{} holds no certificate", file.display());
    }
    tracing::debug!(bundle = %Fingerprint::of_bundle(&anchors), "trust");
    Ok(anchors)
}
