//! Numbers that must not be confused with one another.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(out)
            }
        }
    };
}

id!(/// One live query sent to a set of hosts. Starts at 1.
    CampaignId(u64));
id!(/// An enrolled host. Dense from 1, so that sets of hosts are small bitmaps.
    HostId(u32));
id!(/// A label: a named set of hosts.
    LabelId(u32));
id!(/// A team of hosts; 0 is "no team".
    TeamId(u32));
id!(/// Somebody who may log in.
    UserId(u32));
id!(/// A query, saved or typed for one campaign.
    QueryId(u64));
id!(/// A position in a campaign's log. The first answer has 1 and there are no gaps.
    Seq(u64));

impl Seq {
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}
