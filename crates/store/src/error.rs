//! What can go wrong with a store, and whether it is worth another try.

/// A store's failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or did not answer in time. Nothing is known of the write; repeating it is harmless.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store answers and refuses to write: a full disk, a limit of memory. The text says what to do, and goes to
    /// whoever asks.
    #[error("the store takes no writes: {0}")]
    Full(String),
    /// The catalog was there and is gone: an outage until it is put back.
    #[error("{0}")]
    Vanished(String),
    /// What was read back makes no sense.
    #[error("the store holds a damaged record: {0}")]
    Damaged(String),
}

impl StoreError {
    /// The metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Full(_) => "full",
            Self::Vanished(_) => "vanished",
            Self::Damaged(_) => "damaged",
        }
    }
}
