//! The session machine against what a client and an application may count on, under any order of events.

use std::time::Duration;

use answerback::clock::Timestamp;
use answerback::sockjs::session::{Receiver, ReceiverId, Refused, Sent, Session, Step};
use answerback::sockjs::settings::Timing;
use answerback::sockjs::{Close, Frame};

enum Action {
    AttachPoll,
    AttachStream,
    AttachSocket {
        framed: bool,
    },
    /// Polls as a receiver, perhaps an old one, and hands out data if asked for it.
    Drive {
        old: bool,
        bytes: Option<u16>,
    },
    Lose {
        old: bool,
    },
    /// An old receiver's socket has taken some of its last bytes, or all.
    Written {
        all: bool,
    },
    Close,
    Wait {
        millis: u16,
    },
}

impl Action {
    fn of(bytes: [u8; 3]) -> Self {
        let [kind, low, high] = bytes;
        let number = u16::from_le_bytes([low, high]);
        match kind % 12 {
            0 | 1 => Self::AttachPoll,
            2 | 3 => Self::AttachStream,
            4 => Self::AttachSocket {
                framed: low % 2 == 0,
            },
            5..=7 => Self::Drive {
                old: low % 8 == 7,
                bytes: (high % 4 != 3).then_some(number),
            },
            8 => Self::Lose { old: low % 4 != 0 },
            9 => Self::Written { all: low % 2 == 0 },
            10 if low % 4 == 0 => Self::Close,
            _ => Self::Wait { millis: number },
        }
    }
}

/// What has been seen from outside, and must stay true.
#[derive(Default)]
struct Seen {
    receiver: Option<ReceiverId>,
    old: Option<ReceiverId>,
    socket: bool,
    polling: bool,
    opened: bool,
    closing: bool,
    over: bool,
    left: usize,
    quiet_since: Timestamp,
    vacant_until: Timestamp,
    handed: u64,
    handed_at: Option<Timestamp>,
}

const LIMIT: usize = 4096;

/// Each three bytes are something that happens.
pub(crate) fn check(data: &[u8]) {
    let timing = Timing::default();
    let mut now = Timestamp::from_secs(1_000);
    let mut session = Session::new(timing, now);
    let mut seen = Seen {
        vacant_until: now + timing.disconnect,
        ..Seen::default()
    };
    for bytes in data.as_chunks().0 {
        match Action::of(*bytes) {
            Action::AttachPoll => seen.attach(&mut session, Receiver::Poll { limit: LIMIT }, now),
            Action::AttachStream => {
                seen.attach(&mut session, Receiver::Stream { limit: LIMIT }, now);
            }
            Action::AttachSocket { framed } => {
                seen.attach(&mut session, Receiver::Socket { framed }, now);
            }
            Action::Drive { old, bytes } => match if old { seen.old } else { seen.receiver } {
                Some(id) if old => assert_eq!(session.poll(id, now), Step::End),
                Some(id) => seen.drive(&mut session, id, bytes.map(usize::from), now),
                None => {}
            },
            Action::Lose { old: true } => {
                if let Some(id) = seen.old {
                    session.lost(id);
                }
            }
            Action::Lose { old: false } => {
                if let Some(id) = seen.receiver.take() {
                    session.lost(id);
                    seen.over = true;
                }
            }
            Action::Written { all } => {
                if let (Some(id), None, false) = (seen.old, seen.receiver, seen.over) {
                    session.written(id, all, now);
                    let wait = if all {
                        seen.back_within(&timing)
                    } else {
                        timing.stall
                    };
                    seen.vacant_until = now + wait;
                }
            }
            Action::Close => {
                session.close(Close::normal());
                seen.closing = true;
            }
            Action::Wait { millis } => {
                now = now + Duration::from_millis(millis.into());
                let expired = session.handle_timeout(now).is_some();
                assert_eq!(expired, seen.expires(&timing, now));
            }
        }
        assert_eq!(session.is_over(), seen.over);
        assert_eq!(session.takes_messages(), !seen.over && !seen.closing);
        if let Some(id) = seen.receiver {
            assert!(session.is_attached(id));
        }
    }
}

impl Seen {
    fn attach(&mut self, session: &mut Session, kind: Receiver, now: Timestamp) {
        match session.attach(kind, now) {
            Err(Refused::Over) => assert!(self.over),
            Err(Refused::Busy) => assert!(!self.over && self.receiver.is_some()),
            Ok(id) => {
                assert!(!self.over && self.receiver.is_none());
                self.socket = matches!(kind, Receiver::Socket { .. });
                self.opened |= kind == Receiver::Socket { framed: false };
                self.polling = matches!(kind, Receiver::Poll { .. });
                self.left = LIMIT;
                self.receiver = Some(id);
                self.quiet_since = now;
                self.handed_at = None;
                self.handed = 0;
            }
        }
    }

    /// How long a client has to come back: longer, the more it has been handed.
    fn back_within(&self, timing: &Timing) -> Duration {
        let arrival = self.handed.saturating_sub(8 * 1024) * 1000 / (2 * 1024);
        timing.disconnect + Duration::from_millis(arrival).min(timing.stall)
    }

    fn drive(
        &mut self,
        session: &mut Session,
        id: ReceiverId,
        data: Option<usize>,
        now: Timestamp,
    ) {
        self.handed_at = None;
        let silent = now.since(self.quiet_since);
        let (bytes, last) = match session.poll(id, now) {
            Step::Write(Frame::Open) => {
                assert!(!self.opened && !self.closing);
                self.opened = true;
                (2, false)
            }
            Step::Write(Frame::Heartbeat) => {
                assert!(self.opened && !self.closing && silent >= Duration::from_secs(25));
                (2, false)
            }
            Step::Write(Frame::Close(_)) => {
                assert!(self.closing);
                (20, true)
            }
            Step::Ask { budget, until } => {
                assert!(self.opened && !self.closing && budget > 0 && until > now);
                match data {
                    Some(bytes) => (bytes, false),
                    None => return,
                }
            }
            Step::End => panic!("ended although attached"),
        };
        self.left = self.left.saturating_sub(bytes);
        self.handed += bytes as u64;
        let ends = last || self.polling || (!self.socket && self.left == 0);
        assert_eq!(session.sent(id, bytes, now) == Sent::Ends, ends);
        assert_eq!(session.is_attached(id), !ends);
        self.quiet_since = now;
        self.handed_at = Some(now);
        if ends {
            self.old = self.receiver.take();
            self.vacant_until = now + self.back_within(&Timing::default());
            self.over |= self.socket;
        }
    }

    fn expires(&mut self, timing: &Timing, now: Timestamp) -> bool {
        let expires = match (self.receiver, self.handed_at) {
            (None, _) => now >= self.vacant_until,
            (Some(_), Some(since)) => now.since(since) >= timing.stall,
            (Some(_), None) => false,
        };
        let expires = expires && !self.over;
        self.over |= expires;
        if expires {
            self.old = self.receiver.take().or(self.old);
        }
        expires
    }
}
