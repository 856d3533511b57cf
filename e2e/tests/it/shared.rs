//! What the tests share.

use std::sync::Arc;

use certwave_e2e::api::ApiServer;
use certwave_e2e::lasting;
use tokio::sync::OnceCell;

/// The API server that all tests of this process use, with the CRDs applied.
pub(crate) async fn api() -> Arc<ApiServer> {
    static API: OnceCell<Arc<ApiServer>> = OnceCell::const_new();
    API.get_or_init(|| async {
        // The server's start must not hang on the runtime of the test that happens to come first.
        let starting = lasting::runtime().spawn(async {
            let server = ApiServer::start().await?;
            server.apply_crds()?;
            anyhow::Ok(Arc::new(server))
        });
        starting.await.unwrap().unwrap()
    })
    .await
    .clone()
}
