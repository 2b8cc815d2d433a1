//! Work that would keep others waiting, done beside the event loop.

use tokio::runtime::{Handle, RuntimeFlavor};

/// What is done with fewer bytes takes less time than to move it away, a few hundred microseconds.
const BYTES_MIN: usize = 256 * 1024;

/// Does work on so many bytes. If it is long, the thread's other tasks are given to another thread first. How much runs
/// at once is bounded by the account that the bytes were taken from.
pub fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_others = || {
        Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
    };
    if bytes >= BYTES_MIN && has_others() {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_meanwhile() {
        let (told, heard) = std::sync::mpsc::channel();
        tokio::spawn(async move {
            tokio::spawn(async move { told.send(Instant::now()) });
            aside(BYTES_MIN, || heard.recv_timeout(Duration::from_secs(30)))
        })
        .await
        .unwrap()
        .unwrap();
    }

    #[tokio::test]
    async fn a_thread_without_others_does_it_itself() {
        assert_eq!(aside(usize::MAX, || 1), 1);
    }
}
