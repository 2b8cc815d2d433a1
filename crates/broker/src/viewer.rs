//! One viewer's conversation, pure: `auth`, then `select_campaign`, then what it is told and when.
//!
//! The caller's contract: after every `handle_*` call, perform the [`Command`] it returned (if any), then drain
//! [`Viewer::poll_message`] until it is empty, and close when [`Viewer::poll_close`] says so.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ids::{CampaignId, Seq};
use super::stream_error::StreamError;
use super::update::{self, Ended, Phase, Standing, Totals};
use crate::clock::Timestamp;
use crate::limits::{VIEWER_AUTH_WITHIN, VIEWER_SELECT_WITHIN};

/// So many messages may wait while a command is performed; both that there are fit twice.
const PENDING_MAX: usize = 4;
/// RFC 6455: a message that violates the endpoint's policy.
const POLICY: u16 = 1008;

/// What the shell is to do; it answers with the method named like the command.
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// Look the token up, then call [`Viewer::handle_authenticated`].
    Authenticate {
        /// As the client sent it; never to be logged.
        token: String,
    },
    /// Open the campaign for this user, then call [`Viewer::handle_selected`].
    Select(Selection),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Authenticate { .. } => out.write_str("Authenticate(..)"),
            Self::Select(selection) => selection.fmt(out),
        }
    }
}

/// What a viewer wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The campaign.
    pub campaign: CampaignId,
    /// The last position it has seen; 0 for everything.
    pub after: Seq,
    /// The epoch that `after` belongs to, if the client says so.
    pub epoch: Option<u64>,
}

/// What the shell knows of a campaign at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Counts the ticks, so that a viewer sees each once.
    pub number: u64,
    /// The targets by state.
    pub totals: Totals,
    /// Set when the campaign has ended: nothing will follow what is in the log.
    pub ended: Option<Arc<Ended>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opened,
    Authenticating,
    Authenticated,
    Selecting(Seq),
    Watching,
    Closing,
}

/// The state of one viewer.
#[derive(Debug)]
pub struct Viewer {
    state: State,
    opened_at: Timestamp,
    outgoing: VecDeque<Bytes>,
    cursor: Seq,
    tick: Tick,
    told: Standing,
    /// Messages that arrived while a command was under way.
    pending: VecDeque<String>,
    close: Option<Box<(u16, String)>>,
}

impl Viewer {
    /// A viewer that has just connected.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: State::Opened,
            opened_at: now,
            outgoing: VecDeque::new(),
            cursor: Seq(0),
            tick: Tick::default(),
            told: Standing {
                expected_results: 0,
                actual_results: 0,
                status: Phase::Pending,
            },
            pending: VecDeque::new(),
            close: None,
        }
    }

    /// The client has sent a message: one object, or as a courtesy an array of them.
    pub fn handle_message(&mut self, text: &str) -> Option<Command> {
        if text.trim_start().starts_with('[') {
            let Ok(objects) = serde_json::from_str::<Vec<&RawValue>>(text) else {
                return self.handle_one("");
            };
            let commands: Vec<_> = objects
                .iter()
                .filter_map(|object| self.handle_one(object.get()))
                .collect();
            return commands.into_iter().next();
        }
        self.handle_one(text)
    }

    /// The token was looked up, and is good or not.
    pub fn handle_authenticated(&mut self, outcome: Result<(), StreamError>) -> Option<Command> {
        if self.state != State::Authenticating {
            return None;
        }
        if let Err(error) = outcome {
            self.refuse(&error);
            return None;
        }
        self.state = State::Authenticated;
        let next = self.pending.pop_front()?;
        self.handle_one(&next)
    }

    /// The campaign was opened and its log ends at `last`, or an error says why not.
    pub fn handle_selected(&mut self, outcome: Result<(Tick, Seq), StreamError>) {
        let State::Selecting(after) = self.state else {
            return;
        };
        match outcome {
            Err(error) => self.refuse(&error),
            Ok((tick, last)) => {
                self.state = State::Watching;
                self.pending.clear();
                self.cursor = after;
                self.handle_tick(tick, last);
            }
        }
    }

    /// The campaign was looked at anew and its log ends at `last`; tells the client what has changed.
    pub fn handle_tick(&mut self, tick: Tick, last: Seq) {
        if self.state != State::Watching || tick.number == self.tick.number {
            return;
        }
        let before = std::mem::replace(&mut self.tick, tick);
        if self.tick.totals != before.totals {
            self.outgoing.push_back(update::totals(&self.tick.totals));
        }
        let has_ended = before.ended.is_none() && self.tick.ended.is_some();
        self.tell_standing(self.cursor >= last, has_ended);
    }

    /// The number of the last tick that it was told of.
    #[must_use]
    pub const fn tick_number(&self) -> u64 {
        self.tick.number
    }

    /// Results up to this position have been handed to the connection.
    pub fn handle_sent(&mut self, last: Seq) {
        self.cursor = last;
    }

    /// The cursor has reached the end of the log. If nothing can follow, the client hears so at once instead of
    /// at the next tick; otherwise `finished` waits for a tick, as it always did.
    pub fn handle_end(&mut self) {
        let all = self.cursor.0 >= self.tick.totals.count;
        if self.state == State::Watching && (self.tick.ended.is_some() || all) {
            self.tell_standing(true, false);
        }
    }

    /// The campaign or its log is beyond this viewer's reach: says why, and closes.
    pub fn handle_failure(&mut self, error: &StreamError) {
        if self.state != State::Closing {
            self.refuse(error);
        }
    }

    /// Something is amiss but may mend: says what, and goes on.
    pub fn handle_warning(&mut self, warning: &StreamError) {
        self.outgoing.push_back(update::error(warning));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.state == State::Authenticated {
            self.end(POLICY, "no campaign was selected in time");
        } else {
            self.end(POLICY, "authentication timed out");
        }
    }

    /// When [`Viewer::handle_timeout`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::Opened | State::Authenticating => Some(self.opened_at + VIEWER_AUTH_WITHIN),
            State::Authenticated => Some(self.opened_at + VIEWER_SELECT_WITHIN),
            State::Selecting(_) | State::Watching | State::Closing => None,
        }
    }

    /// The next message that goes out before any result.
    pub fn poll_message(&mut self) -> Option<Bytes> {
        self.outgoing.pop_front()
    }

    /// Whether [`Viewer::poll_message`] has one.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The close code and reason, once all messages are out.
    #[must_use]
    pub fn poll_close(&self) -> Option<(u16, &str)> {
        let (code, reason) = &**self.close.as_ref()?;
        self.outgoing.is_empty().then_some((*code, reason.as_str()))
    }

    /// The position up to which results are on their way; none unless the viewer watches.
    #[must_use]
    pub fn cursor(&self) -> Option<Seq> {
        (self.state == State::Watching).then_some(self.cursor)
    }

    fn handle_one(&mut self, text: &str) -> Option<Command> {
        match self.state {
            State::Opened => self.read_auth(text),
            State::Authenticated => self.read_select(text),
            State::Authenticating => {
                if self.pending.len() < PENDING_MAX {
                    self.pending.push_back(text.to_owned());
                } else {
                    self.end(POLICY, "too many messages before authentication");
                }
                None
            }
            // Nothing that a client says after its choice means anything (spec 1.9).
            State::Selecting(_) | State::Watching | State::Closing => None,
        }
    }

    fn read_auth(&mut self, text: &str) -> Option<Command> {
        #[derive(Deserialize)]
        struct Auth {
            token: String,
        }
        let data = parse(text)
            .filter(|(kind, _)| kind == "auth")
            .map(|(_, data)| data);
        let auth = data.and_then(|data| serde_json::from_str::<Auth>(data).ok());
        let Some(Auth { token }) = auth else {
            self.end(POLICY, "expected auth");
            return None;
        };
        self.state = State::Authenticating;
        Some(Command::Authenticate { token })
    }

    fn read_select(&mut self, text: &str) -> Option<Command> {
        #[derive(Deserialize)]
        struct Select {
            campaign_id: u64,
            #[serde(default)]
            after: u64,
            epoch: Option<u64>,
        }
        let Some((kind, data)) = parse(text) else {
            self.refuse_message("error reading select_campaign");
            return None;
        };
        if kind != "select_campaign" {
            self.refuse_message("expected select_campaign");
            return None;
        }
        let Ok(select) = serde_json::from_str::<Select>(data) else {
            self.refuse_message("error unmarshaling select_campaign data");
            return None;
        };
        if select.campaign_id == 0 {
            self.refuse_message("0 is not a valid campaign ID");
            return None;
        }
        self.state = State::Selecting(Seq(select.after));
        Some(Command::Select(Selection {
            campaign: CampaignId(select.campaign_id),
            after: Seq(select.after),
            epoch: select.epoch,
        }))
    }

    /// `finished` must never overtake a result, so it needs a cursor that has caught up with the log. That the campaign
    /// has ended is told at once (`is_news`), whatever the cursor says.
    fn tell_standing(&mut self, caught_up: bool, is_news: bool) {
        let expected = self.tick.totals.online;
        let actual = self.cursor.0;
        let ended = self.tick.ended.as_deref();
        let enough = caught_up && (ended.is_some() || actual >= expected);
        let status = if self.told.status == Phase::Finished || enough {
            Phase::Finished
        } else {
            Phase::Pending
        };
        let standing = Standing {
            expected_results: expected,
            actual_results: actual,
            status,
        };
        if standing != self.told || is_news {
            self.told = standing;
            self.outgoing.push_back(update::status(&standing, ended));
        }
    }

    /// Sends an error and closes.
    fn refuse(&mut self, error: &StreamError) {
        self.outgoing.push_back(update::error(error));
        self.end(1000, &error.text);
    }

    fn refuse_message(&mut self, text: &'static str) {
        self.refuse(&StreamError::invalid_message(text));
    }

    fn end(&mut self, code: u16, reason: &str) {
        self.state = State::Closing;
        self.pending.clear();
        if self.close.is_none() {
            self.close = Some(Box::new((code, reason.to_owned())));
        }
    }
}

/// A message's type and the text of its data; none if it is not a message.
fn parse(text: &str) -> Option<(Cow<'_, str>, &str)> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let message: Message<'_> = serde_json::from_str(text).ok()?;
    Some((message.r#type, message.data.map_or("null", RawValue::get)))
}

#[cfg(test)]
#[path = "viewer_tests.rs"]
mod tests;
