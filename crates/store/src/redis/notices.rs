//! Notices between nodes: a few bytes on one channel say that there is something to read. A lost one costs a second, nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::url::{TIMEOUT, connection_config};
use super::{Core, lock};
use crate::results::CampaignId;

/// A node notifies at most once in this time, whatever happens.
const QUIET: Duration = Duration::from_millis(5);
/// How often a silent channel is tried.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// The pause before another connection attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// Campaigns named in one notice; more wait for the next.
const CAMPAIGNS_A_RING: usize = 512;

/// What this node has changed since it rang last.
#[derive(Default)]
pub(super) struct Notices {
    changed: Mutex<Changed>,
    wake: Notify,
}

#[derive(Default)]
struct Changed {
    catalog: bool,
    active: bool,
    logs: BTreeSet<CampaignId>,
}

impl Notices {
    /// There is more in a campaign's log.
    pub(super) fn log(&self, id: CampaignId) {
        if lock(&self.changed).logs.insert(id) {
            self.wake.notify_one();
        }
    }

    /// A campaign has begun or ended.
    pub(super) fn active(&self) {
        lock(&self.changed).active = true;
        self.wake.notify_one();
    }

    /// The catalog has changed.
    pub(super) fn catalog(&self) {
        lock(&self.changed).catalog = true;
        self.wake.notify_one();
    }

    /// The next notice: who notifies, `c` for the catalog, `a` for campaigns, and the numbers of logs.
    fn take(&self, origin: &str) -> Option<String> {
        let mut changed = lock(&self.changed);
        let mut words = vec![origin.to_owned()];
        words.extend(std::mem::take(&mut changed.catalog).then(|| "c".to_owned()));
        words.extend(std::mem::take(&mut changed.active).then(|| "a".to_owned()));
        while words.len() < CAMPAIGNS_A_RING
            && let Some(id) = changed.logs.pop_first()
        {
            words.push(id.to_string());
        }
        if !changed.logs.is_empty() {
            self.wake.notify_one();
        }
        (words.len() > 1).then(|| words.join(" "))
    }
}

impl Core {
    /// Rings for this node: at once if it was quiet, else after the pause.
    pub(super) async fn notify(self: Arc<Self>) {
        loop {
            self.notices.wake.notified().await;
            let Some(message) = self.notices.take(&self.origin) else {
                continue;
            };
            let mut cmd = redis::cmd("PUBLISH");
            cmd.arg(self.keys.notices()).arg(message);
            if let Err(error) = self.data.call(&cmd).await {
                tracing::debug!(%error, "cannot ring");
            }
            sleep(QUIET).await;
        }
    }

    /// Listens for other nodes, connecting again whenever the connection breaks.
    pub(super) async fn listen(self: Arc<Self>) {
        let lost = Arc::new(Notify::new());
        for attempt in 0.. {
            match self.subscribe(attempt, &lost).await {
                Ok(mut connection) => {
                    self.hear_all();
                    self.stay(&mut connection, &lost).await;
                    tracing::debug!("the notices's connection broke");
                }
                Err(error) => tracing::debug!(%error, "cannot listen for the notices"),
            }
            sleep(PAUSE).await;
        }
    }

    async fn subscribe(
        self: &Arc<Self>,
        attempt: usize,
        lost: &Arc<Notify>,
    ) -> RedisResult<MultiplexedConnection> {
        let core = Arc::downgrade(self);
        let lost = Arc::clone(lost);
        // Called by the connection's task for each message: it only sets flags, so nothing can pile up.
        let hear = move |push: PushInfo| heard(&core, &push, &lost);
        let config = connection_config().set_push_sender(hear);
        let connecting = async {
            let server = self.place.server(attempt).await?;
            let mut connection = server
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            connection.subscribe(self.keys.notices()).await?;
            Ok(connection)
        };
        tokio::time::timeout(TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// Returns when the connection is lost or does not answer.
    async fn stay(&self, connection: &mut MultiplexedConnection, lost: &Notify) {
        loop {
            tokio::select! {
                () = lost.notified() => return,
                () = sleep(TRY_EVERY) => {}
            }
            let ping = redis::cmd("PING");
            let pong = ping.query_async::<Value>(connection);
            if !matches!(tokio::time::timeout(TIMEOUT, pong).await, Ok(Ok(_))) {
                return;
            }
        }
    }

    /// Looks at everything: nobody knows what was notified while nobody listened.
    fn hear_all(&self) {
        self.committed.notify_one();
        self.resync.notify_one();
        self.feeds.wake_all();
    }

    fn hear(&self, message: &str) {
        let mut words = message.split_ascii_whitespace();
        if words.next() == Some(self.origin.as_str()) {
            return;
        }
        for word in words {
            match word {
                "c" => self.committed.notify_one(),
                "a" => self.resync.notify_one(),
                number => {
                    if let Ok(id) = number.parse() {
                        self.feeds.wake(CampaignId(id));
                    }
                }
            }
        }
    }
}

fn heard(core: &Weak<Core>, push: &PushInfo, lost: &Notify) -> Result<(), ()> {
    match (&push.kind, push.data.get(1)) {
        (PushKind::Disconnection, _) => lost.notify_one(),
        (PushKind::Message, Some(Value::BulkString(message))) => {
            if let (Some(core), Ok(message)) = (core.upgrade(), std::str::from_utf8(message)) {
                core.hear(message);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_that_come_together_are_one_and_a_long_list_is_split() {
        let notices = Notices::default();
        assert_eq!(notices.take("me."), None);
        notices.catalog();
        notices.log(CampaignId(7));
        notices.log(CampaignId(7));
        notices.log(CampaignId(3));
        assert_eq!(notices.take("me.").unwrap(), "me. c 3 7");
        assert_eq!(notices.take("me."), None);
        for id in 0..600 {
            notices.log(CampaignId(id));
        }
        let named = |text: String| text.split(' ').count() - 1;
        assert_eq!(named(notices.take("me.").unwrap()), 511);
        assert_eq!(named(notices.take("me.").unwrap()), 89);
    }
}
