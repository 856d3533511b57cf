//! Commands that belong beside the operator.

pub mod broker_config;
pub mod claim;
pub mod crl_sync;
pub mod ledger;
mod mosquitto;

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

pub use mosquitto::{CrlSyncOptions, MosquittoFiles, MosquittoOptions, mosquitto};

/// Why a command did nothing, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The arguments or the objects do not allow it.
    #[error("{0}")]
    Refused(String),
    /// The API server refused or did not answer.
    #[error("the Kubernetes API: {0}")]
    Api(#[from] kube::Error),
    /// There is no usable kubeconfig.
    #[error("no Kubernetes API is configured: {0}")]
    Config(String),
    /// The ledger refused, or something is wrong with it.
    #[error(transparent)]
    Ledger(#[from] certwave_ledger::LedgerError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CommandError {
    /// For `map_err` on what was done to `path`.
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// A client by the kubeconfig given, else as kubectl would find one.
async fn client(kubeconfig: Option<&PathBuf>) -> Result<kube::Client, CommandError> {
    let Some(path) = kubeconfig else {
        return Ok(kube::Client::try_default().await?);
    };
    let refused = |error: kube::config::KubeconfigError| CommandError::Config(error.to_string());
    let file = Kubeconfig::read_from(path).map_err(refused)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(refused)?;
    Ok(kube::Client::try_from(config)?)
}
