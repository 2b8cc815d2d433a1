//! Hand-outs: which hosts get a query now, and which of them do not count.

use std::collections::HashMap;
use std::time::Duration;

use super::reply::{list, natural, number, unexpected};
use super::scripts::Script;
use super::{Core, lock, millis, scripts};
use crate::StoreError;
use crate::clock::Timestamp;
use crate::results::{CampaignId, HandOut, HostId};

/// Hand-outs remembered that do not count, while Redis is away.
const TAKE_BACKS_MAX: usize = 65_536;
/// A command that nobody waits for any more may still lie in a socket of a Redis that was hung, and run after the first
/// look at what it did. So hand-outs that were lost are looked for in so many rounds, a second apart.
const LOST_ROUNDS: u8 = 3;
/// For so long after Redis has failed to answer, hosts are told to wait only this long: another node may be about to take
/// the hand-out back.
const UNSURE_FOR: Duration = Duration::from_secs(10);
const UNSURE_WAIT: Duration = Duration::from_secs(2);

/// Hand-outs of which this node never heard whether they happened, with the rounds in which they are still to be looked
/// for. No host has got the query by them.
pub(super) type Lost = HashMap<(CampaignId, HostId), u8>;

/// A hand-out under way. Unless it comes to its end, it is lost: Redis did not answer, or the agent went away.
struct Attempt<'a> {
    core: &'a Core,
    key: (CampaignId, HostId),
    is_over: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut lost = lock(&self.core.lost);
        if !self.is_over && (lost.len() < TAKE_BACKS_MAX || lost.contains_key(&self.key)) {
            lost.insert(self.key, LOST_ROUNDS);
        }
    }
}

impl Core {
    pub(super) async fn hand_out(
        &self,
        id: CampaignId,
        host: HostId,
        now: Timestamp,
    ) -> Result<HandOut, StoreError> {
        let key = (id, host);
        let mut attempt = Attempt {
            core: self,
            key,
            is_over: false,
        };
        let mut reply = self.try_to_hand_out(id, host, now).await?;
        let was_lost = lock(&self.lost).contains_key(&key);
        if was_lost && matches!(reply, HandOut::Pending(_)) {
            self.amend(&scripts::LOSE, id, &[host]).await?;
            reply = self.try_to_hand_out(id, host, now).await?;
        }
        if was_lost {
            lock(&self.lost).remove(&key);
        }
        attempt.is_over = true;
        Ok(match reply {
            HandOut::Pending(until) if self.data.has_failed_within(UNSURE_FOR) => {
                HandOut::Pending(until.min(now + UNSURE_WAIT))
            }
            reply => reply,
        })
    }

    async fn try_to_hand_out(
        &self,
        id: CampaignId,
        host: HostId,
        now: Timestamp,
    ) -> Result<HandOut, StoreError> {
        let rules = &self.settings.rules;
        let keys = self.keys.campaign(id);
        let mut cmd = scripts::HAND_OUT.call(&[&keys.meta, &keys.waiting, &keys.handed]);
        cmd.arg(self.time(now)).arg(host.0);
        cmd.arg(millis(rules.overdue)).arg(rules.hand_outs_max);
        cmd.arg(self.lifetime_ms());
        let reply = list(self.run(&scripts::HAND_OUT, &cmd).await?);
        let reply = reply.ok_or_else(|| unexpected("a hand-out"))?;
        match (
            reply.first().and_then(number),
            reply.get(1).and_then(natural),
        ) {
            (Some(1), _) => Ok(HandOut::Give),
            (Some(2), Some(wait)) => Ok(HandOut::Pending(now + Duration::from_millis(wait))),
            _ => Ok(HandOut::Never),
        }
    }

    /// The host has the query, so it is not given it anew before it is overdue, but this time does not count.
    pub(super) async fn take_back(&self, id: CampaignId, host: HostId) {
        if let Err(error) = self.amend(&scripts::TAKE_BACK, id, &[host]).await {
            tracing::debug!(%error, "a hand-out is taken back when Redis answers again");
            let mut later = lock(&self.take_backs);
            if later.len() < TAKE_BACKS_MAX {
                later.push((id, host));
            }
        }
    }

    async fn amend(
        &self,
        script: &Script,
        id: CampaignId,
        hosts: &[HostId],
    ) -> Result<(), StoreError> {
        let keys = self.keys.campaign(id);
        let mut cmd = script.call(&[&keys.handed]);
        for host in hosts {
            cmd.arg(host.0);
        }
        self.run(script, &cmd).await.map(|_| ())
    }

    /// Takes back what could not be while Redis was away.
    pub(super) async fn amend_hand_outs(&self) {
        let mut rest = std::mem::take(&mut *lock(&self.take_backs));
        rest.sort_unstable();
        for same in rest.chunk_by(|a, b| a.0 == b.0) {
            let hosts: Vec<_> = same.iter().map(|(_, host)| *host).collect();
            if let Err(error) = self.amend(&scripts::TAKE_BACK, same[0].0, &hosts).await {
                tracing::debug!(%error, "hand-outs are not taken back");
                lock(&self.take_backs).extend_from_slice(same);
            }
        }
        let mut lost: Vec<_> = lock(&self.lost).keys().copied().collect();
        lost.sort_unstable();
        for same in lost.chunk_by(|a, b| a.0 == b.0) {
            let hosts: Vec<_> = same.iter().map(|(_, host)| *host).collect();
            match self.amend(&scripts::LOSE, same[0].0, &hosts).await {
                Ok(()) => self.count_round(same),
                Err(error) => tracing::debug!(%error, "lost hand-outs are not taken back"),
            }
        }
    }

    fn count_round(&self, looked_for: &[(CampaignId, HostId)]) {
        let mut lost = lock(&self.lost);
        for key in looked_for {
            if let Some(rounds) = lost.get_mut(key) {
                *rounds -= 1;
                if *rounds == 0 {
                    lost.remove(key);
                }
            }
        }
    }
}
