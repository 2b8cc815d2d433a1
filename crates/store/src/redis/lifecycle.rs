//! Claims, endings and the reaper: each transition is a compare-and-set in one script, so exactly one node makes it.

use super::reply::{list, natural, text, unexpected};
use super::{Core, StoreClock, millis, scripts};
use crate::clock::Timestamp;
use crate::results::{CampaignId, Claim, Ending};
use crate::{Reaped, StoreError};

/// Campaigns looked at in one round of the reaper.
const ROUND: usize = 64;
/// Rounds in one call of the reaper; what is left is due at the next.
const ROUNDS: usize = 16;

/// What the reaper found of a campaign, and when somebody must look again.
enum Found {
    Open(u64),
    Over(u64),
    Gone,
}

impl Core {
    pub(super) async fn claim(
        &self,
        id: CampaignId,
        node: &str,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        let keys = self.keys.campaign(id);
        let mut cmd = scripts::CLAIM.call(&[&keys.meta, &keys.claims]);
        cmd.arg(self.time(now)).arg(node);
        cmd.arg(millis(self.settings.rules.lease));
        cmd.arg(self.lifetime_ms());
        cmd.arg(millis(self.settings.rules.resume_grace));
        let reply = list(self.run(&scripts::CLAIM, &cmd).await?).unwrap_or_default();
        match reply.first().and_then(text) {
            Some("O") => {
                let deadline = reply.get(1).and_then(natural);
                let deadline = deadline.ok_or_else(|| unexpected("a claim"))?;
                self.bring_forward(id, deadline).await?;
                Ok(Claim::Claimed)
            }
            Some("U") => Ok(Claim::Unknown),
            Some("E") => {
                let ending = reply.get(1).and_then(text).and_then(Ending::from_stored);
                let ending = ending.ok_or_else(|| unexpected("a claim"))?;
                Ok(Claim::Ended(ending))
            }
            _ => Err(unexpected("a claim")),
        }
    }

    pub(super) async fn release(
        &self,
        id: CampaignId,
        node: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let keys = self.keys.campaign(id);
        let mut cmd = scripts::RELEASE.call(&[&keys.meta, &keys.claims]);
        cmd.arg(self.time(now)).arg(node);
        cmd.arg(millis(self.settings.rules.resume_grace));
        let deadline = natural(&self.run(&scripts::RELEASE, &cmd).await?);
        let Some(deadline @ 1..) = deadline else {
            return Ok(());
        };
        self.bring_forward(id, deadline).await
    }

    /// The stored deadline may be too early, since claims move it away all the time; it is never too late.
    async fn bring_forward(&self, id: CampaignId, deadline: u64) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("ZADD");
        cmd.arg(self.keys.deadlines()).arg("XX").arg("LT");
        cmd.arg(deadline).arg(id.0);
        self.data.call(&cmd).await.map(|_| ())
    }

    pub(super) async fn end(
        &self,
        id: CampaignId,
        ending: Ending,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.campaign(id);
        let mut cmd = scripts::END.call(&keys.all());
        cmd.arg(self.time(now)).arg(String::from(ending));
        cmd.arg(self.kept_ms());
        let Some(ended) = natural(&self.run_safely(&scripts::END, &cmd).await?) else {
            return Ok(false);
        };
        self.retire(id);
        let forgotten = ended + millis(self.settings.rules.retention);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("SREM").arg(self.keys.active()).arg(id.0);
        pipeline.cmd("ZADD").arg(self.keys.deadlines()).arg("XX");
        pipeline.arg(forgotten).arg(id.0);
        if let Err(error) = self.control.pipe(&pipeline).await {
            // The campaign has ended; the reaper finds that at the old deadline and puts the lists right.
            tracing::warn!(%error, "an ended campaign is still listed as active");
        }
        self.notices.active();
        Ok(true)
    }

    pub(super) async fn reap(&self, now: Timestamp) -> Result<Vec<Reaped>, StoreError> {
        let mut reaped = Vec::new();
        for _ in 0..ROUNDS {
            let overdue = self.overdue(now).await?;
            let found = overdue.iter().map(|(id, _)| self.look(*id, now));
            let found = futures_util::future::join_all(found).await;
            let mut cmd = scripts::RESCHEDULE.call(&[
                self.keys.deadlines(),
                self.keys.active(),
                self.keys.campaigns(),
            ]);
            for ((id, seen), (found, event)) in overdue.iter().zip(found) {
                let (left, at) = match found {
                    Found::Open(at) => ("W", at.to_string()),
                    Found::Over(at) => ("C", at.to_string()),
                    Found::Gone => ("U", String::new()),
                };
                cmd.arg(id.0).arg(seen).arg(at).arg(left);
                reaped.extend(event);
            }
            if overdue.is_empty() {
                break;
            }
            if let Err(error) = self.control.run(&scripts::RESCHEDULE, &cmd).await {
                // What was done is done and must be told; the lists are put right in the next call.
                tracing::warn!(%error, "the reaper could not note what it did");
                break;
            }
            self.notices.active();
            if overdue.len() < ROUND {
                break;
            }
        }
        Ok(reaped)
    }

    /// Campaigns whose deadlines have passed, with the deadlines as they are stored.
    async fn overdue(&self, now: Timestamp) -> Result<Vec<(CampaignId, String)>, StoreError> {
        let lease = self.settings.rules.lease;
        let pause = match self.settings.clock {
            StoreClock::Server => i64::try_from(millis(lease / 3)).unwrap_or(-1),
            StoreClock::Caller => -1,
        };
        let mut cmd = scripts::OVERDUE.call(&[self.keys.deadlines(), self.keys.reaper()]);
        cmd.arg(self.time(now)).arg(ROUND);
        cmd.arg(millis(lease)).arg(pause);
        let reply = list(self.control.run(&scripts::OVERDUE, &cmd).await?);
        let reply = reply.ok_or_else(|| unexpected("the reaper"))?;
        let pairs = reply.chunks_exact(2).map(|pair| {
            let id = CampaignId(natural(&pair[0])?);
            Some((id, text(&pair[1])?.to_owned()))
        });
        pairs
            .collect::<Option<_>>()
            .ok_or_else(|| unexpected("the reaper"))
    }

    /// Ends or forgets one campaign if it is due. If it cannot be reached (its part of the cluster may be failing
    /// over), viewers cannot renew their claims either, so it has one lease before anybody looks again.
    async fn look(&self, id: CampaignId, now: Timestamp) -> (Found, Option<Reaped>) {
        match self.look_at(id, now).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(campaign = id.0, %error, "the reaper cannot reach a campaign");
                (Found::Open((now + self.settings.rules.lease).0), None)
            }
        }
    }

    async fn look_at(
        &self,
        id: CampaignId,
        now: Timestamp,
    ) -> Result<(Found, Option<Reaped>), StoreError> {
        let rules = &self.settings.rules;
        let keys = self.keys.campaign(id);
        let mut cmd = scripts::DUE.call(&keys.all());
        cmd.arg(self.time(now)).arg(millis(rules.unclaimed));
        cmd.arg(millis(rules.resume_grace))
            .arg(millis(rules.longest));
        cmd.arg(millis(rules.retention)).arg(self.kept_ms());
        let reply = list(self.run_safely(&scripts::DUE, &cmd).await?).unwrap_or_default();
        let at = reply.get(1).and_then(natural);
        match (reply.first().and_then(text), at) {
            (Some("W"), Some(at)) => Ok((Found::Open(at), None)),
            (Some("C"), Some(at)) => Ok((Found::Over(at), None)),
            (Some("E"), Some(at)) => {
                self.retire(id);
                let ending = reply.get(2).and_then(text).and_then(Ending::from_stored);
                let ending = ending.ok_or_else(|| unexpected("the reaper"))?;
                let forgotten = at + millis(rules.retention);
                Ok((Found::Over(forgotten), Some(Reaped::Ended(id, ending))))
            }
            (Some("F"), _) => Ok((Found::Gone, Some(Reaped::Forgotten(id)))),
            (Some("U"), _) => Ok((Found::Gone, None)),
            _ => Err(unexpected("the reaper")),
        }
    }

    /// Agents of this node are not given the campaign any more. Other nodes compare the list of active campaigns when
    /// the wake slot notifies, so it notifies only after the campaign has left that list.
    fn retire(&self, id: CampaignId) {
        self.touch(id);
        self.active.remove(id);
    }
}
