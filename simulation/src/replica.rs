//! Replicas of the operator: all of it that runs in production, over the simulated world. One that ends is started again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certwave_controller::clock::Clock;
use certwave_controller::metrics::Metrics;
use certwave_controller::parts::Parts;
use certwave_controller::publish::{self, Cache};
use certwave_controller::reconcile::Feed;
use certwave_controller::replica::{self, LEASE};
use certwave_controller::{api, fitting, gates, ocsp};
use certwave_ledger::{Ledger, SqliteLedger};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::api::ApiServer;
use crate::broker::Broker;
use crate::dial::ToBroker;
use crate::history::History;
use crate::judge::Judge;
use crate::os;
use crate::weather::{Life, ToLedger, Weather};

/// The name of the ledger in this process's memory.
pub const LEDGER: &str = "certwave";
/// The namespace of the Leases.
pub const NAMESPACE: &str = "certwave-system";
/// Where CRLs are read.
pub const PUBLICATION: &str = "http://crl.example.com";

/// How long whoever restarts a replica waits, milliseconds.
const RESTART: i64 = 2000;

/// What replicas are made of.
pub struct Ground {
    /// The API server.
    pub api: Arc<ApiServer>,
    /// The broker.
    pub broker: Arc<Broker>,
    /// What lies between.
    pub weather: Arc<Weather>,
    /// Who watches.
    pub judge: Arc<Judge>,
    /// What happened.
    pub history: Arc<History>,
    /// One for the process: replicas share a machine's clock.
    pub clock: Arc<Clock>,
}

/// A replica: process after process.
pub struct Replica {
    number: usize,
    ground: Arc<Ground>,
    now: Mutex<Option<Process>>,
    /// When it was found to have ended.
    ended: Mutex<Option<i64>>,
}

struct Process {
    life: Arc<Life>,
    stop: watch::Sender<bool>,
    task: AbortHandle,
}

impl Replica {
    /// One that does not run.
    pub fn new(number: usize, ground: &Arc<Ground>) -> Self {
        Self {
            number,
            ground: Arc::clone(ground),
            now: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// When the ledger cannot be opened.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.as_ref().is_some_and(|process| !process.life.is_over()) {
            return Ok(());
        }
        let life = Life::new(self.number);
        let (stop, stopping) = watch::channel(false);
        let task = operate(&self.ground, &life, stopping)?;
        self.ground.history.say(format!("replica {} starts", self.number));
        *now = Some(Process {
            life,
            stop,
            task: task.abort_handle(),
        });
        Ok(())
    }

    /// Starts it again where it has ended by itself, after a while, as a kubelet does.
    ///
    /// # Errors
    /// When the ledger cannot be opened.
    pub fn keep(&self) -> anyhow::Result<()> {
        let now = os::elapsed_ms();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if self.runs() {
            *ended = None;
        } else if now - *ended.get_or_insert(now) >= RESTART {
            *ended = None;
            self.start()?;
        }
        Ok(())
    }

    /// Kills it: nothing that it still does reaches anybody.
    pub fn kill(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = now {
            process.life.end();
            process.task.abort();
            self.ground.history.say(format!("replica {} is killed", self.number));
        }
    }

    /// Ends it as a shutdown does.
    pub fn stop(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = &*now {
            process.stop.send_replace(true);
        }
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.as_ref().is_some_and(|process| !process.life.is_over())
    }
}

fn operate(ground: &Arc<Ground>, life: &Arc<Life>, mut stop: watch::Receiver<bool>) -> anyhow::Result<JoinHandle<()>> {
    let to_ledger = ToLedger {
        weather: Arc::clone(&ground.weather),
        life: Arc::clone(life),
    };
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::in_memory(LEDGER, Arc::new(to_ledger))?);
    let metrics = Arc::new(Metrics::new()?);
    let client = api::over(ground.api.client(life), Arc::clone(&metrics), Arc::clone(&ground.clock));
    let served: axum::Router = publish::router(Cache::new(Arc::clone(&ledger)));
    let signers = Arc::new(ocsp::Signers::new(Arc::clone(&metrics.ocsp)));
    let parts = Arc::new(Parts {
        feed: Arc::new(Feed::new(&client, None)),
        client: client.clone(),
        ledger: Arc::clone(&ledger),
        identity: format!("replica-{}", life.replica),
        lease: (NAMESPACE.to_owned(), LEASE),
        clock: Arc::clone(&ground.clock),
        metrics,
        signers,
        publication_base: Some(PUBLICATION.to_owned()),
        namespace: None,
        status_delay: Duration::from_millis(1500),
        archive_after_days: 90,
        standing: watch::Sender::new(0),
        dial: Arc::new(ToBroker {
            broker: Arc::clone(&ground.broker),
            life: Arc::clone(life),
            judge: Arc::clone(&ground.judge),
        }),
        http: gates::Client::over(served),
    });
    let (life, history) = (Arc::clone(life), Arc::clone(&ground.history));
    Ok(tokio::spawn(async move {
        replica::settle(client.clone(), &*ledger, (NAMESPACE, LEASE)).await;
        fitting::wait(&client, |_| {}).await;
        let stopped = async {
            // The sender goes with the process.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let ended = Box::pin(replica::run(&parts, stopped)).await;
        let why = match &ended {
            Ok(()) => "as it was told".to_owned(),
            Err(error) => shortened(&error.to_string()),
        };
        history.say(format!("replica {} has ended: {why}", life.replica));
        life.end();
    }))
}

/// Without numbers, which may be of keys.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).take(120).collect()
}
