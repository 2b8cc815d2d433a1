//! A viewer's conversation under any order of messages, look-ups, ticks and results: every message is well formed,
//! `finished` never overtakes a result and stays, and nothing follows a close.

use std::sync::Arc;

use answerback::clock::Timestamp;
use answerback::results::{
    CampaignId, Command, Ended, Ending, Seq, StreamError, Tick, Totals, UserId, Viewer,
};
use serde_json::Value;

const SAID: [&str; 8] = [
    r#"{"type":"auth","data":{"token":"t"}}"#,
    r#"{"type":"select_campaign","data":{"campaign_id":7}}"#,
    r#"{"type":"select_campaign","data":{"campaign_id":7,"after":3,"epoch":1}}"#,
    r#"[{"type":"auth","data":{"token":"t"}},{"type":"select_campaign","data":{"campaign_id":7}}]"#,
    r#"{"type":"select_campaign","data":{"campaign_id":0}}"#,
    "null",
    "",
    "[[[[",
];

/// What has been seen from outside, and must stay true.
struct Seen {
    viewer: Viewer,
    now: Timestamp,
    wanted: Option<Command>,
    tick: Tick,
    /// The end of the log.
    last: u64,
    finished: bool,
    closed: bool,
}

/// Each pair of bytes is something that happens; what is left at an 8 is said as it is.
pub(crate) fn check(data: &[u8]) {
    let now = Timestamp::from_secs(1_000);
    let mut seen = Seen {
        viewer: Viewer::new(now),
        now,
        wanted: None,
        tick: Tick::default(),
        last: 0,
        finished: false,
        closed: false,
    };
    let mut rest = data;
    while let [kind, value, more @ ..] = rest {
        rest = more;
        if kind % 11 == 8 {
            let text = String::from_utf8_lossy(more);
            seen.say(&text);
            rest = &[];
        } else {
            seen.step(kind % 11, *value);
        }
        seen.hear();
    }
}

impl Seen {
    fn say(&mut self, text: &str) {
        let command = self.viewer.handle_message(text);
        self.want(command);
    }

    fn want(&mut self, command: Option<Command>) {
        if command.is_some() {
            assert!(self.wanted.is_none(), "two commands at once");
            assert!(!self.closed);
            self.wanted = command;
        }
    }

    fn step(&mut self, kind: u8, value: u8) {
        match kind {
            0..=2 => self.say(SAID[usize::from(value) % SAID.len()]),
            3 => self.perform(value),
            4 => {
                self.tick.number += 1;
                self.tick.totals.count = self.last + u64::from(value % 8);
                self.tick.totals.online = u64::from(value / 16);
                if value == 255 {
                    let ended = Ended::new(Ending::StoppedBy(UserId(1)), None);
                    self.tick.ended = Some(Arc::new(ended));
                }
                self.viewer.handle_tick(self.tick.clone(), Seq(self.last));
            }
            5 if self.tick.ended.is_none() => self.last += u64::from(value % 4),
            6 => {
                if let Some(Seq(cursor)) = self.viewer.cursor() {
                    let sent = self.last.saturating_sub(cursor).min(value.into());
                    self.viewer.handle_sent(Seq(cursor + sent));
                    if cursor + sent >= self.last {
                        self.viewer.handle_end();
                    }
                }
            }
            7 => {
                self.now = Timestamp(self.now.0 + u64::from(value) * 100);
                self.viewer.handle_timeout(self.now);
                assert!(self.viewer.deadline().is_none_or(|at| at > self.now));
            }
            9 if value < 16 => self.viewer.handle_failure(&StreamError::unauthorized()),
            10 => self
                .viewer
                .handle_warning(&StreamError::store_unavailable()),
            _ => {}
        }
    }

    fn perform(&mut self, value: u8) {
        let is_good = !value.is_multiple_of(8);
        match self.wanted.take() {
            Some(Command::Authenticate { .. }) => {
                let good = is_good.then_some(()).ok_or_else(StreamError::unauthorized);
                let command = self.viewer.handle_authenticated(good);
                self.want(command);
            }
            Some(Command::Select(selection)) => {
                self.last = self.last.max(selection.after.0);
                self.tick.number += 1;
                self.tick.totals = Totals {
                    count: self.last + 1,
                    ..Totals::default()
                };
                let error = || StreamError::campaign_not_found(CampaignId(7));
                let good = is_good.then(|| (self.tick.clone(), Seq(self.last)));
                self.viewer.handle_selected(good.ok_or_else(error));
            }
            None => {}
        }
    }

    fn hear(&mut self) {
        let mut count = 0;
        while let Some(message) = self.viewer.poll_message() {
            count += 1;
            assert!(count < 1_000, "no end of messages");
            let message: Value = serde_json::from_slice(&message).unwrap_or_default();
            match message["type"].as_str() {
                Some("totals") => assert!(message["data"]["count"].is_u64()),
                Some("status") => self.hear_status(&message["data"]),
                Some("error") => assert!(
                    message["data"].is_string()
                        && message["code"].is_string()
                        && message["final"].is_boolean()
                ),
                other => panic!("{other:?}"),
            }
        }
        if self.viewer.poll_close().is_some() {
            self.closed = true;
            assert_eq!(self.viewer.cursor(), None, "results after a close");
            assert_eq!(self.viewer.deadline(), None);
        }
    }

    fn hear_status(&mut self, data: &Value) {
        assert!(!self.closed);
        let sent = data["actual_results"].as_u64();
        let finished = data["status"] == "finished";
        if finished && !self.finished {
            assert!(sent >= Some(self.last), "it overtakes results");
        }
        assert!(finished || !self.finished, "it is taken back");
        self.finished = finished;
        assert_eq!(data["ended"].is_object(), self.tick.ended.is_some());
    }
}
