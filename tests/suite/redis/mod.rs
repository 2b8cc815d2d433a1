//! The Redis store on real servers: several nodes, outages, failovers.

mod backup;
mod contract;
mod eviction;
mod failover;
pub mod faults;
mod idle;
mod names;
mod nodes;
mod outages;
mod relay;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::clock::{Clock, Timestamp};
use answerback::results::{Answer, CampaignId, HostId, QueryId, Question, Read, Seq, UserId};
use answerback::sockjs::Form;
use answerback::store::redis::{RedisStore, Settings};
use answerback::store::{Appended, CampaignLog, Store};
use bytes::{Bytes, BytesMut};

/// These tests read raw frames alone, and those a log writes itself.
pub fn encode(form: Form, _: &[u8], _: &mut BytesMut) {
    panic!("nobody reads {form:?} here");
}

pub async fn node(url: &str, name: &str) -> Arc<RedisStore> {
    RedisStore::connect(Settings::new(url, name, encode))
        .await
        .unwrap()
}

pub fn now() -> Timestamp {
    Clock::System.now()
}

pub fn question(hosts: std::ops::RangeInclusive<u32>) -> Question {
    Question {
        query_id: QueryId(4),
        query_name: None,
        user_id: UserId(1),
        sql: "select 1".to_owned(),
        targets: Arc::new(hosts.collect()),
        teams: Vec::new(),
    }
}

pub fn answer(host: u32) -> Answer {
    Answer {
        host: HostId(host),
        failed: host.is_multiple_of(7),
        body: Bytes::from(format!(r#""host":{{"id":{host}}},"rows":[],"error":null"#)),
    }
}

/// Appends until the store says how it went, as an agent does that gets a 503.
pub async fn append_until_taken(store: &RedisStore, id: CampaignId, host: u32) -> Appended {
    loop {
        if let Ok(appended) = store.append(id, answer(host), now()).await {
            return appended;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A viewer: everything that a log tells, from a position on.
pub struct Viewer {
    store: Arc<RedisStore>,
    pub log: Arc<CampaignLog>,
    pub cursor: Seq,
    pub hosts: Vec<u32>,
}

impl Viewer {
    pub async fn open(store: &Arc<RedisStore>, id: CampaignId) -> Self {
        let log = store.follow(id).await.unwrap().expect("a log");
        Self {
            store: Arc::clone(store),
            log,
            cursor: Seq(0),
            hosts: Vec::new(),
        }
    }

    /// Reads what there is; fails if a position is left out or comes twice.
    pub async fn look(&mut self) {
        loop {
            match self.log.read(self.cursor, Form::RawFrame, 1 << 16) {
                Read::End => return,
                Read::Evicted { first, last } => {
                    assert!(self.log.forked_after().is_none_or(|same| first <= same));
                    assert!(last >= first);
                    let before = Seq(first.0 - 1);
                    let Ok(records) = self.store.read(self.log.id(), before, 1 << 20).await else {
                        return;
                    };
                    self.log.restore(&records);
                }
                Read::Slice(slice, last) => {
                    for part in &slice.parts {
                        self.hear(part);
                    }
                    assert_eq!(self.cursor, last);
                }
            }
        }
    }

    fn hear(&mut self, frames: &[u8]) {
        let mut rest = frames;
        while !rest.is_empty() {
            let (start, length) = match rest[1] {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                127 => unreachable!("no test has messages of 64 KiB"),
                short => (2, usize::from(short)),
            };
            let message: serde_json::Value =
                serde_json::from_slice(&rest[start..start + length]).unwrap();
            self.cursor = self.cursor.next();
            assert_eq!(message["data"]["seq"], self.cursor.0);
            let host = message["data"]["host"]["id"].as_u64().unwrap();
            self.hosts.push(u32::try_from(host).unwrap());
            rest = &rest[start + length..];
        }
    }

    /// Reads until it has heard of so many hosts.
    pub async fn await_hosts(&mut self, count: usize, within: Duration) {
        let give_up = Instant::now() + within;
        loop {
            self.look().await;
            if self.hosts.len() >= count {
                break;
            }
            assert!(
                Instant::now() < give_up,
                "{} of {count} hosts came",
                self.hosts.len()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let distinct: HashSet<_> = self.hosts.iter().collect();
        assert_eq!(distinct.len(), self.hosts.len(), "a host came twice");
    }
}

/// Waits for something that comes within a time.
pub async fn eventually(what: &str, within: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + within;
    while !is_so().await {
        assert!(Instant::now() < give_up, "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
