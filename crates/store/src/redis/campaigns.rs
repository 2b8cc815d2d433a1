//! Campaigns as records: creating and reading them, and who has done what.

use std::sync::Arc;

use redis::Value;
use roaring::RoaringBitmap;

use super::bits::{SMALL_HOSTS, read_command, to_bitmap, to_hosts};
use super::keys::CampaignKeys;
use super::reply::{list, natural, text, unexpected};
use super::{Core, lock, millis, scripts};
use crate::clock::Timestamp;
use crate::results::{
    Campaign, CampaignId, Ending, Progress, QueryId, Question, Status, TeamId, UserId,
};
use crate::{ActiveCampaign, StoreError};

/// Campaigns whose targets are kept in memory; the oldest numbers make room.
const TARGETS_KEPT: usize = 256;
/// Numbers tried for a new campaign: a failover can turn the sequence back.
const NUMBERS_TRIED: usize = 256;

/// The fields of a campaign's hash that tell what it is.
const FIELDS: [&str; 11] = [
    "status", "created", "ended", "ending", "sql", "query", "user", "name", "epoch", "small",
    "teams",
];

impl Core {
    pub(super) async fn create(
        &self,
        question: Question,
        now: Timestamp,
    ) -> Result<Campaign, StoreError> {
        for _ in 0..NUMBERS_TRIED {
            let id = CampaignId(self.reserve("campaign", 1).await?);
            let Some((created, deadline)) = self.write(id, &question, now).await? else {
                continue;
            };
            self.register(id, deadline).await?;
            self.touch(id);
            self.active.insert(ActiveCampaign {
                id,
                sql: question.sql.clone(),
                targets: Arc::clone(&question.targets),
                user: question.user_id,
                teams: question.teams.clone(),
            });
            self.remember_targets(id, created, &question.targets);
            self.notices.active();
            return Ok(Campaign {
                id,
                question,
                created_at: created,
                status: Status::Waiting,
                ended: None,
                epoch: 0,
                is_incomplete: false,
            });
        }
        let why = "the sequence of campaigns lies far behind the campaigns";
        Err(StoreError::Damaged(why.to_owned()))
    }

    /// Writes the campaign's own keys; they expire if [`Core::register`] never comes. `None`: the number is taken.
    async fn write(
        &self,
        id: CampaignId,
        question: &Question,
        now: Timestamp,
    ) -> Result<Option<(Timestamp, u64)>, StoreError> {
        let rules = &self.settings.rules;
        let keys = self.keys.campaign(id);
        let small = question.targets.len() <= SMALL_HOSTS;
        let bits = question.targets.max().map_or(0, |max| (max / 8 + 1) * 8);
        let name = question.query_name.as_ref();
        let mut cmd = scripts::CREATE.call(&[&keys.meta, &keys.targets, &keys.waiting]);
        cmd.arg(self.time(now)).arg(self.lifetime_ms());
        cmd.arg(i32::from(small)).arg(bits);
        cmd.arg(millis(rules.unclaimed.min(rules.longest)));
        cmd.arg(&question.sql).arg(question.query_id.0);
        cmd.arg(question.user_id.0);
        cmd.arg(name.map(|name| format!("={name}")).unwrap_or_default());
        cmd.arg(write_teams(&question.teams));
        if small {
            for host in question.targets.iter() {
                cmd.arg(host);
            }
        } else {
            cmd.arg(to_bitmap(&question.targets));
        }
        let reply = list(self.run_safely(&scripts::CREATE, &cmd).await?);
        let reply = reply.ok_or_else(|| unexpected("a creation"))?;
        match reply.as_slice() {
            [created, deadline] => {
                let times = natural(created).map(Timestamp).zip(natural(deadline));
                times.map(Some).ok_or_else(|| unexpected("a creation"))
            }
            _ => Ok(None),
        }
    }

    /// Tells the reaper and every node of a campaign that is written.
    async fn register(&self, id: CampaignId, deadline: u64) -> Result<(), StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("ZADD").arg(self.keys.deadlines());
        pipeline.arg(deadline).arg(id.0);
        pipeline.cmd("ZADD").arg(self.keys.campaigns());
        pipeline.arg(id.0).arg(id.0);
        pipeline.cmd("SADD").arg(self.keys.active()).arg(id.0);
        self.control.pipe(&pipeline).await?;
        Ok(())
    }

    pub(super) async fn campaign(&self, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        let keys = self.keys.campaign(id);
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&keys.meta).arg(&FIELDS);
        let meta = list(self.data.call(&cmd).await?).ok_or_else(|| unexpected("HMGET"))?;
        if matches!(meta.first(), None | Some(Value::Nil)) {
            return Ok(None);
        }
        let damaged = || StoreError::Damaged(format!("campaign {id} has a field that is none"));
        let created_at = natural(&meta[1]).map(Timestamp).ok_or_else(damaged)?;
        let small = text(&meta[9]) == Some("1");
        let targets = self.targets(id, created_at, small, &keys).await?;
        read_campaign(id, created_at, &meta, targets)
            .map(Some)
            .ok_or_else(damaged)
    }

    /// A campaign's targets never change, so they are read once.
    async fn targets(
        &self,
        id: CampaignId,
        created: Timestamp,
        small: bool,
        keys: &CampaignKeys,
    ) -> Result<Arc<RoaringBitmap>, StoreError> {
        if let Some(targets) = lock(&self.targets).get(&(id, created)) {
            return Ok(Arc::clone(targets));
        }
        let mut cmd = redis::cmd(read_command(small));
        cmd.arg(&keys.targets);
        let targets = Arc::new(to_hosts(self.data.call(&cmd).await?)?);
        self.remember_targets(id, created, &targets);
        Ok(targets)
    }

    fn remember_targets(&self, id: CampaignId, created: Timestamp, targets: &Arc<RoaringBitmap>) {
        let mut kept = lock(&self.targets);
        if kept.len() >= TARGETS_KEPT
            && let Some(oldest) = kept.keys().min().copied()
        {
            kept.remove(&oldest);
        }
        kept.insert((id, created), Arc::clone(targets));
    }

    pub(super) async fn campaigns(&self, limit: usize) -> Result<Vec<Campaign>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("ZREVRANGE");
        cmd.arg(self.keys.campaigns()).arg(0).arg(limit - 1);
        let ids = list(self.data.call(&cmd).await?).ok_or_else(|| unexpected("ZREVRANGE"))?;
        let mut campaigns = Vec::with_capacity(ids.len());
        for id in ids.iter().filter_map(natural) {
            campaigns.extend(self.campaign(CampaignId(id)).await?);
        }
        Ok(campaigns)
    }

    pub(super) async fn progress(&self, id: CampaignId) -> Result<Option<Progress>, StoreError> {
        let Some((small, created)) = self.size_and_birth(id).await? else {
            return Ok(None);
        };
        let keys = self.keys.campaign(id);
        let targets = self.targets(id, created, small, &keys).await?;
        let read = read_command(small);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd(read).arg(&keys.waiting);
        pipeline.cmd(read).arg(&keys.failed);
        pipeline.cmd("HKEYS").arg(&keys.handed);
        let replies = self.data.pipe(&pipeline).await?;
        let [waiting, failed, handed] = <[Value; 3]>::try_from(replies)
            .map_err(|_| unexpected("the question for a campaign's progress"))?;
        Ok(Some(Progress {
            answered: targets.as_ref() - to_hosts(waiting)?,
            failed: to_hosts(failed)?,
            handed: to_hosts(handed)?,
        }))
    }

    /// Whether the campaign's sets of hosts are small, and when it was created; none if there is no such campaign.
    pub(super) async fn size_and_birth(
        &self,
        id: CampaignId,
    ) -> Result<Option<(bool, Timestamp)>, StoreError> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&self.keys.campaign(id).meta)
            .arg(&["small", "created"]);
        let meta = list(self.data.call(&cmd).await?).ok_or_else(|| unexpected("HMGET"))?;
        let [small, created] = meta.as_slice() else {
            return Err(unexpected("HMGET"));
        };
        Ok(natural(created).map(|at| (text(small) == Some("1"), Timestamp(at))))
    }

    /// The hosts that have answered, given what `waiting` was read as.
    pub(super) async fn answered(
        &self,
        id: CampaignId,
        created: Timestamp,
        small: bool,
        waiting: Value,
    ) -> Result<RoaringBitmap, StoreError> {
        let keys = self.keys.campaign(id);
        let targets = self.targets(id, created, small, &keys).await?;
        Ok(targets.as_ref() - to_hosts(waiting)?)
    }
}

fn read_campaign(
    id: CampaignId,
    created_at: Timestamp,
    meta: &[Value],
    targets: Arc<RoaringBitmap>,
) -> Option<Campaign> {
    let [
        status,
        _,
        ended,
        ending,
        sql,
        query,
        user,
        name,
        epoch,
        _,
        teams,
    ] = meta
    else {
        return None;
    };
    let status = match text(status)? {
        "w" => Status::Waiting,
        "r" => Status::Running,
        _ => Status::Complete,
    };
    let ended = match natural(ended) {
        Some(at) => Some((Timestamp(at), Ending::from_stored(text(ending)?)?)),
        None => None,
    };
    Some(Campaign {
        id,
        question: Question {
            query_id: QueryId(natural(query)?),
            query_name: text(name)?.strip_prefix('=').map(str::to_owned),
            user_id: UserId(u32::try_from(natural(user)?).ok()?),
            sql: text(sql)?.to_owned(),
            targets,
            teams: text(teams).map(read_teams).unwrap_or_default(),
        },
        created_at,
        status,
        ended,
        epoch: natural(epoch)?,
        is_incomplete: false,
    })
}

/// Numbers with commas between them; 0 stands for hosts without a team.
fn write_teams(teams: &[Option<TeamId>]) -> String {
    let numbers = teams.iter().map(|team| team.map_or(0, |team| team.0));
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    numbers.join(",")
}

fn read_teams(text: &str) -> Vec<Option<TeamId>> {
    let numbers = text.split(',').filter_map(|number| number.parse().ok());
    numbers
        .map(|number| (number > 0).then_some(TeamId(number)))
        .collect()
}
