//! A stack whose ledger is a database of a server of its own, which may be killed.

use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use certwave_crds::{DeviceCertificate, RotationPhase};
use certwave_e2e::postgres::Postgres;
use certwave_e2e::proxy::Wire;
use certwave_e2e::stack::Stack;
use certwave_e2e::{ports, programs, tools, wait_for};
use serde_json::json;

use crate::faults::world::{World, patch};
use crate::shared;

/// For a rotation on a busy machine.
const ENDS: Duration = Duration::from_mins(4);

/// A [`World`] with the ledger in `PostgreSQL`.
pub(crate) struct Shared {
    world: World,
    pub(crate) server: Postgres,
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Deref for Shared {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Shared {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, Self::server(), None).await
    }

    /// The same, with a line to the database that can be slowed down.
    pub(crate) async fn far(name: &str) -> (Self, Wire) {
        let server = Self::server();
        let wire = Wire::to((Ipv4Addr::LOCALHOST, server.port()).into()).unwrap();
        (Self::with(name, server, Some(&wire)).await, wire)
    }

    fn server() -> Postgres {
        let server = Postgres::start(ports::free().unwrap(), &[]).unwrap();
        server.create_database("ledger").unwrap();
        server
    }

    async fn with(name: &str, server: Postgres, wire: Option<&Wire>) -> Self {
        let mut url = server.tcp_url("ledger");
        if let Some(wire) = wire {
            let (direct, through) = (format!(":{}/", server.port()), format!(":{}/", wire.address().port()));
            url = url.replace(&direct, &through);
        }
        let mut stack = Stack::on(shared::api().await, name).await.unwrap();
        stack.keep_ledger(url.clone());
        Self {
            world: World::on(stack, 3).await,
            server,
            url,
            name: "ledger".to_owned(),
        }
    }

    /// What a query in the ledger prints.
    pub(crate) fn sql(&self, sql: &str) -> Result<String> {
        self.server.sql(&self.name, sql)
    }

    /// Jobs, enrolments left out, that reached this state at some time.
    pub(crate) fn reached(&self, state: &str) -> usize {
        let count = self.sql(&format!(
            "SELECT count(DISTINCT a.job) FROM audit a JOIN jobs j ON j.id = a.job
             WHERE a.what = 'job-{state}' AND j.kind <> 'enrol'"
        ));
        count.unwrap().parse().unwrap()
    }

    /// Waits until jobs have reached a state.
    pub(crate) async fn wait_reached(&self, state: &str, jobs: usize) {
        let what = format!("{jobs} jobs {state}");
        let reached = wait_for(&what, ENDS, || async {
            ensure!(self.reached(state) >= jobs, "{} of them", self.reached(state));
            Ok(())
        });
        self.told(reached.await);
    }

    /// Waits for the Rotation's end, whoever leads, and asserts that each device had one job of it, which was confirmed, and
    /// that none went wrong in any way.
    pub(crate) async fn rotated_once(&self, rotation: &str, ids: &[String]) {
        let ended = wait_for("the Rotation's end", ENDS, || async {
            let status = self.stack.rotation(rotation).await?.status.unwrap_or_default();
            ensure!(status.phase == Some(RotationPhase::Complete), "{status:?}");
            Ok(status)
        });
        let status = self.told(ended.await);
        assert_eq!(
            usize::try_from(status.counts.confirmed).unwrap(),
            ids.len(),
            "{status:#?}"
        );
        for id in ids {
            let jobs = self.sql(&format!(
                "SELECT string_agg(j.kind || ' ' || j.state, ', ' ORDER BY j.created)
                 FROM jobs j JOIN devices d ON d.id = j.device WHERE d.device = '{id}'"
            ));
            assert_eq!(
                jobs.unwrap(),
                "enrol Confirmed, rotate Confirmed",
                "{id}\n{}",
                self.log()
            );
        }
        let charged = self.sql(
            "SELECT count(*) FROM audit WHERE what IN
                ('job-rejected', 'job-failed', 'job-timedout', 'job-rolledback', 'job-cancelled', 'job-lost')",
        );
        assert_eq!(charged.unwrap(), "0", "{}", self.log());
    }

    /// Revokes a device's certificates as a person would.
    pub(crate) async fn revoke(&self, device: &str) {
        let change = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
        patch::<DeviceCertificate>(&self.stack, device, &change).await;
    }

    /// `certwave ledger`, on this ledger or another one.
    pub(crate) fn ledger_command(url: &str, action: &str) -> Result<String> {
        Self::ledger_copy(url, action, &[])
    }

    /// As above, with more arguments: which file it is about.
    pub(crate) fn ledger_copy(url: &str, action: &str, more: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::certwave()?);
        tools::output(command.args(["ledger", action, "--ledger", url]).args(more))
    }
}
