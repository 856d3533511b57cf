//! What the tests share.

use std::sync::{Arc, OnceLock};

use certwave_e2e::api::ApiServer;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// The API server that all tests of this process use, with the CRDs applied.
pub(crate) async fn api() -> Arc<ApiServer> {
    static API: OnceCell<Arc<ApiServer>> = OnceCell::const_new();
    API.get_or_init(|| async {
        // The server's start must not hang on the runtime of the test that happens to come first.
        let starting = lasting_runtime().spawn(async {
            let server = ApiServer::start().await?;
            server.apply_crds()?;
            anyhow::Ok(Arc::new(server))
        });
        starting.await.unwrap().unwrap()
    })
    .await
    .clone()
}

fn lasting_runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}
