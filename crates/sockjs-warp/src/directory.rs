//! Which node holds which session: the face that a product shows.

use std::time::Duration;

use async_trait::async_trait;

/// The directory cannot be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the directory of sessions cannot be asked: {0}")]
pub struct DirectoryUnavailable(pub String);

/// A list, shared by all nodes, of which node holds which session. Sessions and records are short texts without
/// meaning to it. All calls answer within about a second.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Makes this the session's record, for [`Directory::lifetime`], if it has none; if it is this already, its time
    /// begins anew. False if there is another. Of claims at the same time one wins.
    ///
    /// # Errors
    /// [`DirectoryUnavailable`]: nothing is known of the claim.
    async fn claim(&self, session: &str, record: &str) -> Result<bool, DirectoryUnavailable>;

    /// The session's record.
    ///
    /// # Errors
    /// [`DirectoryUnavailable`].
    async fn look_up(&self, session: &str) -> Result<Option<String>, DirectoryUnavailable>;

    /// Forgets the session's record if it is this one. Best effort: a record that stays runs out.
    async fn forget(&self, session: &str, record: &str);

    /// How long a record lasts that is not renewed. It is renewed three times in it.
    fn lifetime(&self) -> Duration;
}
