//! Where the log on this node stands in the stream, and whether what comes next really follows it.
//!
//! Each entry names the one before by a nonce. After a failover that lost entries, positions are given again to other
//! answers; the chain of nonces shows it, whatever the numbers say.

use std::collections::{BTreeMap, VecDeque};

use redis::Value;
use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::again::{RECENT, RECENT_BYTES, weight};
use super::append::Added;
use super::reply::{bytes, list, text};
use crate::CampaignLog;
use crate::results::{Answer, HostId, Record, Seq};

/// Batches that came back before one that was sent earlier.
const EARLY_MAX: usize = 64;

/// An entry of a campaign's stream.
#[derive(Debug)]
pub(super) struct Entry {
    /// The nonce of the entry before; empty for the first.
    pub(super) follows: String,
    /// Its own.
    pub(super) nonce: String,
    /// Its answers in their order; never none.
    pub(super) records: Vec<Record>,
}

/// Whether entries followed what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// They did, and are in the log now.
    Taken,
    /// Some are missing in between.
    Gap,
    /// They follow something else: a failover has lost what is here.
    Fork,
}

/// The place of one node's log in the stream.
#[derive(Debug)]
pub(super) struct Position {
    /// The last position of the stream that is in the log.
    pub(super) seq: Seq,
    /// The nonce of the entry that ends there; none if it is not known.
    nonce: Option<String>,
    /// The campaign's epoch as it was known here.
    pub(super) epoch: u64,
    /// Whose answers are in the log.
    hosts: RoaringBitmap,
    recent: VecDeque<(Instant, Record)>,
    recent_bytes: usize,
    early: BTreeMap<Seq, Added>,
    /// The log's own positions are not the stream's any more; it continues by host.
    pub(super) forked: bool,
}

impl Position {
    /// A log that begins after `seq`, whose answers so far are of these hosts.
    pub(super) fn new(seq: Seq, nonce: String, epoch: u64, hosts: RoaringBitmap) -> Self {
        Self {
            seq,
            nonce: Some(nonce),
            epoch,
            hosts,
            recent: VecDeque::new(),
            recent_bytes: 0,
            early: BTreeMap::new(),
            forked: false,
        }
    }

    /// Whether the head of the stream can be a continuation of what is here.
    pub(super) fn may_precede(&self, seq: Seq, nonce: &str) -> bool {
        let same = self.nonce.as_deref().is_none_or(|mine| mine == nonce);
        seq > self.seq || (seq == self.seq && same)
    }

    /// Takes an entry that was read from the stream.
    pub(super) fn take(&mut self, entry: Entry, log: &CampaignLog, now: Instant) -> Step {
        let Some(last) = entry.records.last().map(|record| record.seq) else {
            return Step::Taken;
        };
        if last <= self.seq {
            return Step::Taken;
        }
        if self
            .nonce
            .as_ref()
            .is_some_and(|mine| *mine != entry.follows)
        {
            return Step::Fork;
        }
        if !self.forked
            && entry
                .records
                .first()
                .is_some_and(|first| first.seq > self.seq.next())
        {
            return Step::Gap;
        }
        self.put(entry.records, log, now);
        self.seq = last;
        self.nonce = Some(entry.nonce);
        self.early.retain(|first, _| *first > last);
        Step::Taken
    }

    /// Takes a batch that this node has just appended, if it is the next; keeps it for a moment if others must come
    /// before it. True if the log has grown.
    pub(super) fn offer(&mut self, added: Added, log: &CampaignLog, now: Instant) -> bool {
        let Some(first) = added.records.first().map(|record| record.seq) else {
            return false;
        };
        if self.forked || first <= self.seq || self.early.len() >= EARLY_MAX {
            return false;
        }
        self.early.insert(first, added);
        let mut grown = false;
        while let Some(next) = self.early.first_entry()
            && *next.key() == self.seq.next()
            && self.nonce.as_deref() == Some(next.get().follows.as_str())
        {
            let added = next.remove();
            let count = added.records.len() as u64;
            self.put(added.records, log, now);
            self.seq = Seq(self.seq.0 + count);
            self.nonce = Some(added.nonce);
            grown = true;
        }
        grown
    }

    /// Whether batches of this node wait for others that must be read first.
    pub(super) fn waits(&self) -> bool {
        !self.early.is_empty()
    }

    fn put(&mut self, records: Vec<Record>, log: &CampaignLog, now: Instant) {
        let records = if self.forked {
            self.renumber(records, log.last())
        } else {
            records
        };
        self.hosts
            .extend(records.iter().map(|record| record.answer.host.0));
        log.append(&records);
        for record in records {
            self.recent_bytes += weight(&record.answer);
            self.recent.push_back((now, record));
        }
        self.forget_old(now);
    }

    /// After a fork the log continues with the hosts that it does not have, at positions of its own.
    fn renumber(&self, records: Vec<Record>, last: Seq) -> Vec<Record> {
        let new = records
            .into_iter()
            .filter(|record| !self.hosts.contains(record.answer.host.0));
        let places = last.0 + 1..;
        new.zip(places)
            .map(|(record, seq)| Record {
                seq: Seq(seq),
                ..record
            })
            .collect()
    }

    /// Drops what no failover can lose any more.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while let Some((at, record)) = self.recent.front()
            && (now.duration_since(*at) > RECENT || self.recent_bytes > RECENT_BYTES)
        {
            self.recent_bytes -= weight(&record.answer);
            self.recent.pop_front();
        }
    }

    /// Turns to continuing by host, and gives back the answers that the stream may have lost. `last` is the end of
    /// the stream as it is now.
    pub(super) fn fork(&mut self, last: Seq) -> Vec<Answer> {
        let safe = self
            .recent
            .front()
            .map_or(0, |(_, record)| record.seq.0 - 1);
        // What is older than the recent answers is the same in the stream, unless even that is gone. A log that
        // forked before has positions of its own, which say nothing of the stream.
        let safe = if self.forked || last.0 < safe {
            0
        } else {
            safe
        };
        self.forked = true;
        self.seq = Seq(safe);
        self.nonce = None;
        self.early.clear();
        self.recent
            .iter()
            .map(|(_, record)| record.answer.clone())
            .collect()
    }
}

/// Reads an entry as `XRANGE` tells it.
pub(super) fn entry(value: Value) -> Option<Entry> {
    let [id, fields] = <[Value; 2]>::try_from(list(value)?).ok()?;
    let last: u64 = text(&id)?.strip_suffix("-0")?.parse().ok()?;
    let mut fields = list(fields)?.into_iter();
    let (follows, nonce) = (fields.next()?, fields.next()?);
    let count = (fields.len() / 2) as u64;
    let mut records = Vec::with_capacity(fields.len() / 2);
    let mut seq = (last + 1).checked_sub(count)?;
    while let (Some(host), Some(body)) = (fields.next(), fields.next()) {
        let host = text(&host)?;
        let (host, failed) = match host.strip_suffix('!') {
            Some(host) => (host, true),
            None => (host, false),
        };
        let answer = Answer {
            host: HostId(host.parse().ok()?),
            failed,
            body: bytes(body)?,
        };
        records.push(Record {
            seq: Seq(seq),
            answer,
        });
        seq += 1;
    }
    Some(Entry {
        follows: text(&follows)?.to_owned(),
        nonce: text(&nonce)?.to_owned(),
        records,
    })
}
