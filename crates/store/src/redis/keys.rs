//! The names of everything that is kept in Redis. What one script touches shares a hash tag, hence a cluster slot.

use crate::results::CampaignId;

/// The keys of one deployment.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// The keys of one campaign, in the order in which the scripts that end and forget it take them.
#[derive(Clone, Debug)]
pub(super) struct CampaignKeys {
    /// Hash: status, times, question, position, nonce, epoch.
    pub(super) meta: String,
    /// Hash: node to the end of its lease.
    pub(super) claims: String,
    /// Who is asked: a set if they are few, else a bitmap by host (most significant bit first).
    pub(super) targets: String,
    /// Who of them has not answered yet; of the same type.
    pub(super) waiting: String,
    /// Whose query failed; of the same type.
    pub(super) failed: String,
    /// Stream: entries of one or several answers, numbered by the position of the last.
    pub(super) log: String,
    /// Hash: host to `milliseconds:times` of its hand-outs.
    pub(super) handed: String,
}

impl CampaignKeys {
    /// All of them.
    pub(super) fn all(&self) -> [&str; 7] {
        [
            &self.meta,
            &self.claims,
            &self.targets,
            &self.waiting,
            &self.failed,
            &self.log,
            &self.handed,
        ]
    }
}

impl Keys {
    /// Names that begin with the prefix.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// One campaign's keys.
    pub(super) fn campaign(&self, id: CampaignId) -> CampaignKeys {
        let name = |what: &str| format!("{}{{{id}}}:{what}", self.prefix);
        CampaignKeys {
            meta: name("meta"),
            claims: name("claims"),
            targets: name("targets"),
            waiting: name("waiting"),
            failed: name("failed"),
            log: name("log"),
            handed: name("handed"),
        }
    }

    /// Sorted set: campaign by the time when somebody must look at it.
    pub(super) fn deadlines(&self) -> String {
        self.control("deadlines")
    }

    /// Set: the campaigns that are waiting or running.
    pub(super) fn active(&self) -> String {
        self.control("active")
    }

    /// Sorted set: all campaigns by number.
    pub(super) fn campaigns(&self) -> String {
        self.control("campaigns")
    }

    /// Sorted set: the nodes that run, by when they said so.
    pub(super) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    /// Held by the node that writes a lost catalog back.
    pub(super) fn putting_back(&self) -> String {
        format!("{}putting_back", self.prefix)
    }

    /// Written to find out whether Redis takes writes.
    pub(super) fn probe(&self) -> String {
        format!("{}probe", self.prefix)
    }

    /// Hash: when the reaper last came, and until when it holds back.
    pub(super) fn reaper(&self) -> String {
        self.control("reaper")
    }

    /// String: what nodes prove to each other that they are nodes with, unless they were given something.
    pub(super) fn node_secret(&self) -> String {
        self.control("node-secret")
    }

    fn control(&self, what: &str) -> String {
        format!("{}{{ctl}}:{what}", self.prefix)
    }

    /// Hash: the catalog's revision, and the nonce of the commit that made it.
    pub(super) fn head(&self) -> String {
        self.catalog("head")
    }

    /// Stream: the catalog's last changes, numbered by revision and place in the commit.
    pub(super) fn changes(&self) -> String {
        self.catalog("changes")
    }

    /// Set: the kinds of which there have been records.
    pub(super) fn kinds(&self) -> String {
        self.catalog("kinds")
    }

    /// Hash: the records of one kind, each `revision:value`.
    pub(super) fn kind(&self, kind: &str) -> String {
        self.catalog(&format!("kind:{kind}"))
    }

    /// Hash: the last number of each sequence.
    pub(super) fn sequences(&self) -> String {
        self.catalog("sequences")
    }

    fn catalog(&self, what: &str) -> String {
        format!("{}{{cat}}:{what}", self.prefix)
    }

    /// Set: the chunks of last check-ins that there are.
    pub(super) fn seen_chunks(&self) -> String {
        format!("{}{{seen}}:chunks", self.prefix)
    }

    /// String: milliseconds of the last check-in of each host of a chunk, six bytes a host.
    pub(super) fn seen(&self, chunk: u32) -> String {
        format!("{}{{seen}}:{chunk}", self.prefix)
    }

    /// String: the node that holds a session.
    pub(super) fn session(&self, session: &str) -> String {
        format!("{}session:{session}", self.prefix)
    }

    /// The one channel on which nodes tell each other that there is something to read.
    pub(super) fn notices(&self) -> String {
        format!("{}bell", self.prefix)
    }
}
