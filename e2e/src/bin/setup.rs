//! Sets up what the tests need and lacks here: programs installed or built, with progress on standard error.
//! With `--serve`, an API server with the CRDs then runs until Ctrl-C, to develop against.

use anyhow::Result;
use certwave_e2e::{api::ApiServer, tools};

#[tokio::main]
async fn main() -> Result<()> {
    tools::mosquitto()?;
    tools::openssl()?;
    // Starting it once shows, before the tests do, whether there is an API to test against.
    let api = ApiServer::start().await?;
    tools::progress("everything is there");
    if std::env::args().nth(1).as_deref() == Some("--serve") {
        api.apply_crds()?;
        println!("export KUBECONFIG={}", api.kubeconfig().display());
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}
