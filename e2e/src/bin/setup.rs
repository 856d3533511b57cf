//! Sets up what the tests need and lacks here: programs installed or built, with progress on standard error. No test's deadline is
//! to pass by that. With `--serve`, an API server with the CRDs then runs until Ctrl-C, to develop against.

use anyhow::Result;
use certwave_e2e::{api::ApiServer, tools};

#[tokio::main]
async fn main() -> Result<()> {
    let serve = std::env::args().nth(1).as_deref() == Some("--serve");
    if !serve {
        programs()?;
    }
    // Starting it once shows, before the tests do, whether there is an API to test against.
    let api = ApiServer::start().await?;
    tools::progress("everything is there");
    if serve {
        api.apply_crds()?;
        println!("export KUBECONFIG={}", api.kubeconfig().display());
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

/// Servers, and foreign judges.
fn programs() -> Result<()> {
    tools::mosquitto()?;
    tools::openssl()?;
    tools::postgresql()?;
    tools::prometheus()?;
    tools::faketime()?;
    tools::python()?;
    tools::verifier()?;
    tools::nats_server()?;
    Ok(())
}
