//! A catalog that is gone from Redis, by eviction or because keys were deleted: noticed, and put back by a node that has it
//! in memory.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use redis::Value;

use super::reply::{list, natural, number, text, unexpected};
use super::{Core, scripts};
use crate::{Revision, StoreError, Stored};

/// Records written at once.
const RECORDS_AT_ONCE: usize = 500;
/// One node writes at a time; another may take over after this long.
const TURN_S: u64 = 30;

const GONE: &str = "the catalog is gone from Redis: its keys were evicted or deleted. A running node writes back what it \
    has in memory; if none runs, restore Redis from a backup. Redis must have maxmemory-policy noeviction";

impl Core {
    /// The last revision and its nonce.
    ///
    /// # Errors
    /// [`StoreError::Vanished`] if records are missing that nobody has deleted.
    pub(super) async fn head(&self) -> Result<(Revision, String), StoreError> {
        let known = self.highest.load(Ordering::Relaxed);
        let mut cmd = scripts::HEAD.call(&[self.keys.head()]);
        cmd.arg(self.keys.kind("")).arg(known);
        let reply = list(self.control.run(&scripts::HEAD, &cmd).await?);
        let reply = reply.ok_or_else(|| unexpected("the catalog's head"))?;
        let [revision, nonce, gone] = reply.as_slice() else {
            return Err(unexpected("the catalog's head"));
        };
        if number(gone) == Some(1) {
            return Err(StoreError::Vanished(GONE.to_owned()));
        }
        let nonce = text(nonce).unwrap_or_default().to_owned();
        let revision = natural(revision).unwrap_or(0);
        self.highest.fetch_max(revision, Ordering::Relaxed);
        Ok((revision, nonce))
    }

    /// Writes records that are gone; those that are there stay as they are. Another node may be at it: then nothing is
    /// done.
    pub(super) async fn put_back(
        &self,
        records: Vec<Stored>,
        upto: Revision,
    ) -> Result<(), StoreError> {
        let mut turn = redis::cmd("SET");
        turn.arg(self.keys.putting_back()).arg(&self.settings.node);
        turn.arg("NX").arg("EX").arg(TURN_S);
        if self.control.call(&turn).await? == Value::Nil {
            return Ok(());
        }
        let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
        for record in &records {
            let numbered = record.key.parse().unwrap_or(0);
            let most = largest.entry(record.kind.as_str()).or_default();
            *most = numbered.max(*most);
        }
        for some in records.chunks(RECORDS_AT_ONCE) {
            let mut pipeline = redis::pipe();
            for record in some {
                let mut value = format!("{}:", record.revision).into_bytes();
                value.extend_from_slice(record.value.as_deref().unwrap_or_default());
                pipeline.cmd("HSETNX").arg(self.keys.kind(&record.kind));
                pipeline.arg(&record.key).arg(value);
            }
            self.control.pipe(&pipeline).await?;
        }
        let keys = [
            self.keys.head(),
            self.keys.changes(),
            self.keys.kinds(),
            self.keys.sequences(),
        ];
        let mut cmd = scripts::PUT_BACK.call(&keys);
        cmd.arg(self.keys.kind("")).arg(upto).arg(self.nonce());
        for (kind, most) in largest {
            cmd.arg(kind).arg(most);
            // Kinds with numbers for keys have a sequence.
            cmd.arg(i32::from(most > 0));
        }
        self.run_safely(&scripts::PUT_BACK, &cmd).await?;
        let mut done = redis::cmd("DEL");
        done.arg(self.keys.putting_back());
        self.control.call(&done).await?;
        self.notices.catalog();
        Ok(())
    }
}
