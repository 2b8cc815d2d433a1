//! The domain of live queries, pure: campaigns, their logs, targets, and what a viewer is told.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests own their tasks and clocks"
    )
)]

use answerback_base::{clock, limits};
use answerback_sockjs as sockjs;

mod block;
pub mod campaign;
pub mod ids;
pub mod ledger;
pub mod log;
mod pending;
pub mod record;
pub mod stream_error;
pub mod targets;
pub mod update;
pub mod viewer;

pub use block::Encode;
pub use campaign::{Campaign, Claim, Ending, Lifecycle, Question, Rules, Status};
pub use ids::{CampaignId, HostId, LabelId, QueryId, Seq, TeamId, UserId};
pub use ledger::{HandOut, Ledger, Progress, Verdict};
pub use log::{Log, Read};
pub use record::{Answer, Record};
pub use stream_error::{ErrorCode, StreamError};
pub use targets::{LabelKind, Targets};
pub use update::{Ended, Totals};
pub use viewer::{Command, Selection, Tick, Viewer};
