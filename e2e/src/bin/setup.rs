//! Sets up what the tests need and lacks here: programs installed or built, with progress on standard error.

use anyhow::Result;
use certwave_e2e::{api::ApiServer, tools};

#[tokio::main]
async fn main() -> Result<()> {
    tools::mosquitto()?;
    tools::openssl()?;
    // Starting it once shows, before the tests do, whether there is an API to test against.
    drop(ApiServer::start().await?);
    tools::progress("everything is there");
    Ok(())
}
