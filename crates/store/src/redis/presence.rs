//! Who was here lately, and which node holds a session: what nodes tell each other about the living.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;

use super::reply::{list, natural, number, text, unexpected};
use super::{Core, millis, scripts};
use crate::StoreError;
use crate::clock::Timestamp;
use crate::results::HostId;

/// Hosts of one chunk: 48 KiB of six bytes each, so that a write touches little and a read of 300,000 hosts is
/// 37 strings.
const CHUNK_HOSTS: u32 = 8_192;
/// Hosts written by one script; it puts three words a host on Lua's stack of 8,000.
const WRITE_HOSTS: usize = 1_024;
/// Bytes of one host's time, in milliseconds.
const TIME_BYTES: usize = 6;
/// A chunk in which nobody was seen for so long is forgotten.
const KEPT: Duration = Duration::from_secs(60 * 24 * 3600);
/// Chunks read by one pipeline: 3 MiB.
const READ_CHUNKS: usize = 64;

impl Core {
    pub(super) async fn put_seen(&self, seen: &[(HostId, Timestamp)]) -> Result<(), StoreError> {
        let mut chunks: BTreeMap<u32, BTreeMap<u32, u64>> = BTreeMap::new();
        for (host, at) in seen {
            let places = chunks.entry(host.0 / CHUNK_HOSTS).or_default();
            let latest = places.entry(host.0 % CHUNK_HOSTS).or_default();
            *latest = at.0.max(*latest);
        }
        for (chunk, places) in chunks {
            let places: Vec<_> = places.into_iter().collect();
            for places in places.chunks(WRITE_HOSTS) {
                let keys = [self.keys.seen_chunks(), self.keys.seen(chunk)];
                let mut cmd = scripts::SEEN.call(&keys);
                cmd.arg(chunk).arg(millis(KEPT));
                for (place, at) in places {
                    cmd.arg(place).arg(at);
                }
                self.run(&scripts::SEEN, &cmd).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn seen(
        &self,
        since: Timestamp,
    ) -> Result<Vec<(HostId, Timestamp)>, StoreError> {
        let mut cmd = redis::cmd("SMEMBERS");
        cmd.arg(self.keys.seen_chunks());
        let chunks = list(self.data.call(&cmd).await?).ok_or_else(|| unexpected("SMEMBERS"))?;
        let mut chunks: Vec<u32> = chunks
            .iter()
            .filter_map(natural)
            .filter_map(|chunk| u32::try_from(chunk).ok())
            .collect();
        chunks.sort_unstable();
        let mut found = Vec::new();
        for chunks in chunks.chunks(READ_CHUNKS) {
            let mut pipeline = redis::pipe();
            for chunk in chunks {
                pipeline.cmd("GET").arg(self.keys.seen(*chunk));
            }
            let replies = self.data.pipe(&pipeline).await?;
            for (chunk, reply) in chunks.iter().zip(replies) {
                if let Value::BulkString(times) = reply {
                    collect(*chunk, &times, since, &mut found);
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn put_session(
        &self,
        session: &str,
        node: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let mut cmd = scripts::PUT_SESSION.call(&[self.keys.session(session)]);
        cmd.arg(node).arg(millis(ttl).max(1));
        let reply = self.run(&scripts::PUT_SESSION, &cmd).await?;
        Ok(number(&reply) == Some(1))
    }

    pub(super) async fn session_owner(&self, session: &str) -> Result<Option<String>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.keys.session(session));
        let reply = self.data.call(&cmd).await?;
        Ok(text(&reply).map(str::to_owned))
    }

    pub(super) async fn node_secret(&self, offered: &str) -> Result<Option<String>, StoreError> {
        let key = self.keys.node_secret();
        let mut offer = redis::cmd("SET");
        offer.arg(&key).arg(offered).arg("NX");
        self.control.call(&offer).await?;
        let mut read = redis::cmd("GET");
        read.arg(&key);
        let secret = self.control.call(&read).await?;
        let secret = text(&secret).ok_or_else(|| unexpected("GET"))?;
        Ok(Some(secret.to_owned()))
    }

    pub(super) async fn drop_session(&self, session: &str, node: &str) {
        let mut cmd = scripts::DROP_SESSION.call(&[self.keys.session(session)]);
        cmd.arg(node);
        if let Err(error) = self.run(&scripts::DROP_SESSION, &cmd).await {
            tracing::debug!(%error, "a session's place is forgotten when its time is over");
        }
    }
}

fn collect(chunk: u32, times: &[u8], since: Timestamp, found: &mut Vec<(HostId, Timestamp)>) {
    for (place, time) in (0..CHUNK_HOSTS).zip(times.chunks_exact(TIME_BYTES)) {
        let at = time.iter().fold(0, |at, byte| at << 8 | u64::from(*byte));
        if at > 0 && at >= since.0 {
            found.push((HostId(chunk * CHUNK_HOSTS + place), Timestamp(at)));
        }
    }
}
