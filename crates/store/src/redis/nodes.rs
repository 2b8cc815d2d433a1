//! Which nodes run on this Redis: so that two of one name are noticed, and a store in use is not taken for an idle one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::reply::{list, text, unexpected};
use super::{Core, millis, scripts};
use crate::StoreError;

/// A start that fails, because the catalog cannot be read or the port is taken, has ended by then and leaves no trace.
const SAY_AFTER: Duration = Duration::from_millis(500);
/// How often a node says that it is here.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// A node that has said nothing for so long is gone.
const COUNTS_FOR: Duration = Duration::from_secs(12);
/// Whoever has this node's name for so many looks is not this node before its restart.
const LOOKS: u32 = 4;
/// Between two complaints, in looks: a minute.
const LOOKS_BETWEEN: u32 = 12;

impl Core {
    /// Says that this node is here; gives how many others have its name.
    async fn say(&self) -> Result<usize, StoreError> {
        let nodes = self.nodes_after(&self.own_entry()).await?;
        let same = |(origin, name): &(String, String)| {
            *name == self.settings.node && *origin != self.origin
        };
        Ok(nodes.iter().filter(|node| same(node)).count())
    }

    /// The names of the nodes that run here, sorted.
    pub(super) async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        let nodes = self.nodes_after("").await?;
        let mut names: Vec<String> = nodes.into_iter().map(|(_, name)| name).collect();
        names.sort();
        Ok(names)
    }

    async fn nodes_after(&self, own: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut cmd = scripts::NODES.call(&[self.keys.nodes()]);
        cmd.arg(own).arg(millis(COUNTS_FOR));
        let reply = list(self.control.run(&scripts::NODES, &cmd).await?);
        let reply = reply.ok_or_else(|| unexpected("the list of nodes"))?;
        let entries = reply
            .iter()
            .filter_map(|entry| text(entry)?.split_once(' '));
        Ok(entries
            .map(|(origin, name)| (origin.to_owned(), name.to_owned()))
            .collect())
    }

    fn own_entry(&self) -> String {
        format!("{} {}", self.origin, self.settings.node)
    }

    /// Says it for ever, and complains of others of this name.
    pub(super) async fn keep_saying(self: Arc<Self>) {
        let name = &self.settings.node;
        let mut looks = 0u32;
        sleep(SAY_AFTER).await;
        loop {
            match self.say().await {
                Ok(0) => looks = 0,
                Ok(_) => {
                    if looks == 0 {
                        tracing::warn!(
                            "a node named {name:?} was here a moment ago: if it was not this one before a restart, give \
                             each its own --node"
                        );
                    } else if looks >= LOOKS && (looks - LOOKS).is_multiple_of(LOOKS_BETWEEN) {
                        tracing::error!(
                            "another node is named {name:?}, too: the two take each other's viewers for their own; give \
                             each its own --node"
                        );
                    }
                    looks = looks.saturating_add(1);
                }
                Err(error) => tracing::debug!(%error, "cannot say that this node is here"),
            }
            sleep(SAY_EVERY).await;
        }
    }

    /// This node ends. Best effort: it is forgotten soon anyway.
    pub(super) async fn say_goodbye(&self) {
        let mut cmd = redis::cmd("ZREM");
        cmd.arg(self.keys.nodes()).arg(self.own_entry());
        if let Err(error) = self.control.call(&cmd).await {
            tracing::debug!(%error, "cannot say that this node ends");
        }
    }
}
