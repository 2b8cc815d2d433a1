//! Viewers of campaigns: the one module that knows both sessions and campaigns.
//!
//! [`Viewers`] is the transports' application. Each session gets a [`conversation::Conversation`], a shell around
//! the pure `results::Viewer`; all conversations about one campaign share a [`watch::CampaignWatch`].

mod conversation;
mod identity;
mod reaper;
mod select;
mod ticker;
mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dashmap::DashMap;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::catalog::Catalog;
use crate::clock::{Clock, Timestamp};
use crate::results::{CampaignId, Claim, Ended, Ending};
use crate::store::Store;
use crate::transport::{Application, Opened};
use conversation::ViewerSession;
use identity::Identities;
use watch::CampaignWatch;

/// What the viewers' face needs of the rest.
#[derive(Clone)]
pub struct Viewers(Arc<Shared>);

pub(crate) struct Shared {
    store: Arc<dyn Store>,
    catalog: Arc<Catalog>,
    auth: Arc<Auth>,
    clock: Clock,
    /// This node's name in claims.
    node: String,
    /// By campaign and epoch: after a store failover that lost answers, the viewers from before go on with their log,
    /// and who comes later gets another.
    watches: DashMap<(CampaignId, u64), Arc<CampaignWatch>>,
    identities: Identities,
    /// Owns every task that a conversation starts.
    tasks: TaskTracker,
}

impl Viewers {
    /// The face, and nothing running yet; see [`Viewers::run`].
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        catalog: Arc<Catalog>,
        auth: Arc<Auth>,
        clock: Clock,
        node: String,
    ) -> Self {
        let (watches, identities) = (DashMap::new(), Identities::default());
        let tasks = TaskTracker::new();
        Self(Arc::new(Shared {
            store,
            catalog,
            auth,
            clock,
            node,
            watches,
            identities,
            tasks,
        }))
    }

    /// Counts hosts, renews claims, ends what is due, and looks people up again, for ever.
    pub async fn run(&self) {
        let shared = &self.0;
        tokio::join!(
            ticker::run(shared),
            ticker::follow_endings(shared),
            ticker::follow_departures(shared),
            reaper::run(shared),
            identity::run(shared)
        );
    }

    /// Gives every claim back and waits for what is under way; call it when the sessions are closed.
    pub async fn stop(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Application for Viewers {
    fn open(&self, opened: Opened, now: Timestamp) -> Box<dyn crate::transport::Conversation> {
        Box::new(ViewerSession::new(
            Arc::clone(&self.0),
            opened.wake_slot,
            now,
        ))
    }
}

impl Shared {
    /// One viewer less. The last one of this node gives the claim back, which starts the resume grace.
    fn leave(self: &Arc<Self>, watch: &Arc<CampaignWatch>) {
        if watch.viewers.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (shared, watch) = (Arc::clone(self), Arc::clone(watch));
        self.tasks.spawn(async move {
            let _claiming = watch.claiming.lock().await;
            let other = |other: &CampaignWatch| other.id() == watch.id() && other.is_watched();
            if shared.watches.iter().any(|entry| other(entry.value())) {
                shared.forget(&watch);
                return;
            }
            let released = shared
                .store
                .release(watch.id(), &shared.node, shared.clock.now())
                .await;
            if let Err(error) = released {
                // The lease runs out by itself.
                tracing::warn!(campaign = %watch.id(), %error, "the claim could not be given back");
            }
            shared.forget(&watch);
        });
    }

    /// Drops a watch that nobody needs any more.
    fn forget(&self, watch: &CampaignWatch) {
        self.watches
            .remove_if(&watch.key(), |_, watch| !watch.is_watched());
    }

    /// An ending as viewers are told.
    fn ended(&self, ending: Ending) -> Ended {
        let user = ending.stopped_by();
        let user = user.and_then(|id| self.catalog.read().users.get(&id).cloned());
        Ended::new(ending, user.map(|(user, _)| user.email.clone()))
    }

    /// Claims the campaign for this node, or renews the claim. Says how the campaign has ended, if it has.
    async fn claim(
        &self,
        watch: &CampaignWatch,
    ) -> Result<Option<Ended>, crate::store::StoreError> {
        let _claiming = watch.claiming.lock().await;
        let claim = self
            .store
            .claim(watch.id(), &self.node, self.clock.now())
            .await?;
        Ok(match claim {
            Claim::Claimed => None,
            Claim::Ended(ending) => Some(self.ended(ending)),
            Claim::Unknown => Some(Ended::unknown()),
        })
    }
}
