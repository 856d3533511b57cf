//! Listings in pages.

use kube::api::{Api, ListParams, ObjectList};
use serde::de::DeserializeOwned;

/// Objects in one page.
pub(super) const PAGE: u32 = 500;

/// Lists objects, page by page, as they were when the first page was asked for (*Retrieving large results sets in chunks* in
/// Kubernetes' API concepts).
pub(super) struct Pages<K> {
    api: Api<K>,
    params: ListParams,
    over: bool,
}

impl<K: Clone + DeserializeOwned + std::fmt::Debug> Pages<K> {
    pub(super) fn new(api: Api<K>, params: ListParams) -> Self {
        Self {
            api,
            params: params.limit(PAGE),
            over: false,
        }
    }

    /// The next page; `None`: there are no more. After an error the listing has to begin anew: the API server may have forgotten where
    /// it was (410).
    pub(super) async fn next(&mut self) -> kube::Result<Option<ObjectList<K>>> {
        if self.over {
            return Ok(None);
        }
        let page = self.api.list(&self.params).await?;
        match page.metadata.continue_.clone().filter(|token| !token.is_empty()) {
            Some(token) => self.params = self.params.clone().continue_token(&token),
            None => self.over = true,
        }
        Ok(Some(page))
    }
}
