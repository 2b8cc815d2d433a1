//! The session's rules as tests, on a clock that is moved by hand; and a comparison with a naive model.

use proptest::prelude::*;

use super::*;

const T0: Timestamp = Timestamp::from_secs(1_000);
const STREAM: Receiver = Receiver::Stream { limit: 4096 };
const POLL: Receiver = Receiver::Poll { limit: 4096 };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn session() -> Session {
    Session::new(Timing::default(), T0)
}

fn opened(kind: Receiver) -> (Session, ReceiverId) {
    let mut session = session();
    let first = session.attach(POLL, T0).unwrap();
    assert_eq!(session.poll(first, T0), Step::Write(Frame::Open));
    assert_eq!(session.sent(first, 2, T0), Sent::Ends);
    let id = session.attach(kind, T0).unwrap();
    (session, id)
}

fn go_away() -> Step {
    Step::Write(Frame::Close(Close::go_away()))
}

#[test]
fn the_first_frame_is_the_open_frame_and_comes_once() {
    let mut session = session();
    let id = session.attach(STREAM, T0).unwrap();
    assert_eq!(session.poll(id, T0), Step::Write(Frame::Open));
    assert_eq!(session.sent(id, 2, T0), Sent::More);
    let ask = Step::Ask {
        budget: 4094,
        until: T0 + secs(25),
    };
    assert_eq!(session.poll(id, T0), ask);
}

#[test]
fn a_poll_ends_after_one_frame_and_is_detached_by_then() {
    let (mut session, id) = opened(POLL);
    assert!(matches!(session.poll(id, T0), Step::Ask { .. }));
    assert_eq!(session.sent(id, 10, T0), Sent::Ends);
    assert!(!session.is_attached(id));
    session.attach(POLL, T0).unwrap();
}

#[test]
fn a_stream_ends_when_its_frames_reach_the_limit() {
    let (mut session, id) = opened(STREAM);
    // 31 messages of 128 characters fit on one response (test_response_limit of the suite).
    assert_eq!(session.sent(id, 2, T0), Sent::More);
    for _ in 0..30 {
        assert_eq!(session.sent(id, 134, T0), Sent::More);
    }
    assert_eq!(session.sent(id, 134, T0), Sent::Ends);
    assert_eq!(session.poll(id, T0), Step::End);
    assert_eq!(session.deadline(), Some(T0 + secs(5)));
}

#[test]
fn a_second_receiver_is_refused_and_changes_nothing() {
    let (mut session, id) = opened(STREAM);
    for _ in 0..1000 {
        assert_eq!(session.attach(POLL, T0), Err(Refused::Busy));
    }
    assert!(session.is_attached(id));
    assert!(matches!(session.poll(id, T0), Step::Ask { .. }));
}

#[test]
fn a_session_without_a_receiver_lasts_five_seconds() {
    let mut fresh = session();
    assert_eq!(fresh.deadline(), Some(T0 + secs(5)));
    assert_eq!(fresh.handle_timeout(Timestamp(T0.0 + 4999)), None);
    assert_eq!(fresh.handle_timeout(T0 + secs(5)), Some(Expired::Abandoned));
    assert!(fresh.is_over() && !fresh.takes_messages());
    assert_eq!(fresh.attach(POLL, T0 + secs(5)), Err(Refused::Over));
    assert_eq!(fresh.handle_timeout(T0 + secs(50)), None);
}

#[test]
fn every_detach_starts_the_timer_anew_and_every_attach_stops_it() {
    let (mut session, _) = opened(POLL);
    let mut now = T0;
    for _ in 0..1000 {
        session.poll(ReceiverId(session.receivers), now);
        session.sent(ReceiverId(session.receivers), 1, now);
        assert_eq!(session.deadline(), Some(now + secs(5)));
        now = Timestamp(now.0 + 4999);
        assert_eq!(session.handle_timeout(now), None);
        session.attach(POLL, now).unwrap();
        assert_eq!(session.deadline(), None);
    }
}

#[test]
fn a_day_of_heartbeats_keeps_an_idle_stream() {
    let mut session = session();
    let id = session
        .attach(Receiver::Stream { limit: 131_072 }, T0)
        .unwrap();
    assert_eq!(session.poll(id, T0), Step::Write(Frame::Open));
    assert_eq!(session.sent(id, 2, T0), Sent::More);
    let (mut now, mut heartbeats) = (T0, 0);
    let day_over = T0 + secs(86_400);
    while now < day_over {
        match session.poll(id, now) {
            Step::Ask { until, .. } => {
                assert_eq!(session.handle_timeout(until), None);
                now = until;
            }
            Step::Write(frame) => {
                assert_eq!(frame, Frame::Heartbeat);
                assert_eq!(session.sent(id, 2, now), Sent::More);
                heartbeats += 1;
            }
            Step::End => panic!("ended at {now:?}"),
        }
    }
    assert_eq!(heartbeats, 86_400 / 25 - 1);
}

#[test]
fn a_heartbeat_ends_a_poll() {
    let (mut session, id) = opened(POLL);
    let due = T0 + secs(25);
    assert_eq!(session.poll(id, due), Step::Write(Frame::Heartbeat));
    assert_eq!(session.sent(id, 2, due), Sent::Ends);
}

#[test]
fn traffic_puts_the_heartbeat_off() {
    let (mut session, id) = opened(STREAM);
    session.sent(id, 10, T0 + secs(20));
    let Step::Ask { until, .. } = session.poll(id, T0 + secs(30)) else {
        panic!("a heartbeat too early");
    };
    assert_eq!(until, T0 + secs(45));
}

#[test]
fn the_close_frame_is_repeated_to_every_receiver() {
    let (mut session, id) = opened(STREAM);
    session.close(Close::go_away());
    session.close(Close::normal());
    assert!(!session.takes_messages());
    let mut now = T0;
    assert_eq!(session.poll(id, now), go_away());
    assert_eq!(session.sent(id, 20, now), Sent::Ends);
    for kind in [POLL, STREAM, POLL] {
        now = Timestamp(now.0 + 4999);
        let next = session.attach(kind, now).unwrap();
        assert_eq!(session.poll(next, now), go_away());
        assert_eq!(session.sent(next, 20, now), Sent::Ends);
        assert_eq!(session.deadline(), Some(now + secs(5)));
    }
    assert_eq!(
        session.handle_timeout(now + secs(5)),
        Some(Expired::Abandoned)
    );
}

#[test]
fn losing_the_receiver_ends_the_session_but_losing_an_old_one_does_not() {
    let (mut session, old) = opened(POLL);
    session.sent(old, 1, T0);
    let id = session.attach(STREAM, T0).unwrap();
    session.lost(old);
    assert!(session.is_attached(id));
    session.lost(id);
    assert!(session.is_over());
    assert_eq!(session.poll(id, T0), Step::End);
    assert_eq!(session.sent(id, 1, T0), Sent::Ends);
    assert_eq!(session.deadline(), None);
}

#[test]
fn a_receiver_that_takes_nothing_stalls_and_one_that_waits_does_not() {
    let (mut session, id) = opened(STREAM);
    session.poll(id, T0);
    assert_eq!(session.deadline(), None);
    session.sent(id, 10, T0);
    assert_eq!(session.deadline(), Some(T0 + secs(300)));
    session.poll(id, T0 + secs(299));
    assert_eq!(session.handle_timeout(T0 + secs(301)), None);
    session.sent(id, 10, T0 + secs(301));
    assert_eq!(
        session.handle_timeout(T0 + secs(601)),
        Some(Expired::Stalled)
    );
    assert_eq!(session.poll(id, T0 + secs(601)), Step::End);
}

#[test]
fn a_driver_that_asks_ahead_tells_what_is_taken() {
    let (mut session, id) = opened(STREAM);
    session.sent(id, 10, T0);
    session.taken(id, None);
    assert_eq!(session.deadline(), None, "nothing follows for now");
    session.sent(id, 10, T0);
    session.poll(id, T0);
    session.taken(id, Some(T0 + secs(1)));
    session.taken(id, Some(T0 + secs(2)));
    assert_eq!(session.deadline(), Some(T0 + secs(301)));
    let stranger = ReceiverId(id.0 + 1);
    session.taken(stranger, None);
    assert_eq!(session.deadline(), Some(T0 + secs(301)));
}

#[test]
fn what_was_handed_out_is_given_time_to_arrive() {
    // As over a line of 95 kbit/s: 119 kB take ten seconds.
    let (mut poll, id) = opened(POLL);
    poll.poll(id, T0);
    assert_eq!(poll.sent(id, 119_000, T0), Sent::Ends);
    assert_eq!(poll.handle_timeout(T0 + secs(30)), None);
    let back = poll.attach(POLL, T0 + secs(30)).unwrap();
    poll.sent(back, 10, T0 + secs(30));
    assert_eq!(poll.deadline(), Some(T0 + secs(35)), "a short answer");

    let (mut huge, id) = opened(POLL);
    huge.sent(id, usize::MAX, T0);
    assert_eq!(huge.deadline(), Some(T0 + secs(305)), "it has its bound");
}

#[test]
fn a_server_that_ends_waits_for_nobody_beyond_the_usual_time() {
    let (mut away, id) = opened(POLL);
    away.sent(id, usize::MAX, T0);
    away.hurry();
    away.close(Close::go_away());
    assert_eq!(away.deadline(), Some(T0 + secs(5)));

    let (mut slow, id) = opened(STREAM);
    slow.sent(id, 5_000, T0);
    slow.written(id, false, T0 + secs(1));
    slow.hurry();
    slow.close(Close::go_away());
    assert_eq!(slow.deadline(), Some(T0 + secs(6)));
    slow.written(id, false, T0 + secs(4));
    assert_eq!(slow.deadline(), Some(T0 + secs(6)));

    let (mut here, id) = opened(STREAM);
    here.sent(id, 4_000, T0);
    here.hurry();
    here.close(Close::go_away());
    assert_eq!(here.poll(id, T0), go_away());
    assert_eq!(here.sent(id, 20, T0), Sent::Ends);
    assert_eq!(here.deadline(), Some(T0 + secs(5)));
}

#[test]
fn the_time_to_come_back_counts_from_the_last_byte_that_the_socket_took() {
    let (mut session, id) = opened(STREAM);
    assert_eq!(session.sent(id, 5_000, T0), Sent::Ends);
    assert_eq!(session.deadline(), Some(T0 + secs(5)));
    for second in 1..1_000 {
        session.written(id, false, T0 + secs(second));
        assert_eq!(session.handle_timeout(T0 + secs(second)), None);
    }
    session.written(id, true, T0 + secs(1_000));
    assert_eq!(session.deadline(), Some(T0 + secs(1_005)));
    let next = session.attach(STREAM, T0 + secs(1_001)).unwrap();
    session.written(id, true, T0 + secs(1_001));
    assert_eq!(session.deadline(), None, "another one receives");
    session.sent(next, 5_000, T0 + secs(1_002));
    session.written(id, false, T0 + secs(1_003));
    assert_eq!(session.deadline(), Some(T0 + secs(1_007)));
    session.written(next, false, T0 + secs(1_003));
    assert_eq!(
        session.handle_timeout(T0 + secs(1_303)),
        Some(Expired::Abandoned),
        "it takes nothing any more"
    );
}

#[test]
fn a_socket_lives_and_dies_with_its_connection() {
    let mut framed = session();
    let id = framed
        .attach(Receiver::Socket { framed: true }, T0)
        .unwrap();
    assert_eq!(framed.poll(id, T0), Step::Write(Frame::Open));
    assert_eq!(framed.sent(id, 1 << 40, T0), Sent::More);
    assert!(matches!(
        framed.poll(id, T0),
        Step::Ask {
            budget: SLICE_BYTES_MAX,
            ..
        }
    ));
    framed.close(Close::go_away());
    assert_eq!(framed.poll(id, T0), go_away());
    assert_eq!(framed.sent(id, 20, T0), Sent::Ends);
    assert!(framed.is_over());

    let mut raw = session();
    let id = raw.attach(Receiver::Socket { framed: false }, T0).unwrap();
    assert!(matches!(raw.poll(id, T0), Step::Ask { .. }));
    assert_eq!(raw.poll(id, T0 + secs(25)), Step::Write(Frame::Heartbeat));
}

/// The rules once more, as plainly as can be: what happened last, and when.
#[derive(Debug)]
struct Model {
    opened: bool,
    closing: bool,
    over: bool,
    receiver: Option<(bool, usize)>,
    quiet_since: Timestamp,
    vacant_since: Timestamp,
}

#[derive(Clone, Debug)]
enum Action {
    Attach { polling: bool },
    Drive { has_data: Option<usize> },
    Lose,
    Close,
    Wait { millis: u64 },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        3 => any::<bool>().prop_map(|polling| Action::Attach { polling }),
        6 => proptest::option::of(1..3000_usize).prop_map(|has_data| Action::Drive { has_data }),
        1 => Just(Action::Lose),
        1 => Just(Action::Close),
        4 => (0..7000_u64).prop_map(|millis| Action::Wait { millis }),
        1 => (0..30_000_u64).prop_map(|millis| Action::Wait { millis }),
    ];
    proptest::collection::vec(action, 1..60)
}

impl Model {
    fn attach(&mut self, polling: bool, now: Timestamp) -> Result<(), Refused> {
        if self.over {
            return Err(Refused::Over);
        }
        if self.receiver.is_some() {
            return Err(Refused::Busy);
        }
        self.receiver = Some((polling, 4096));
        self.quiet_since = now;
        Ok(())
    }

    /// The frame that must be written, or nothing if the application is asked.
    fn expected(&self, now: Timestamp) -> Option<&'static str> {
        match self {
            Model { closing: true, .. } => Some("close"),
            Model { opened: false, .. } => Some("open"),
            _ if now.since(self.quiet_since) >= secs(25) => Some("heartbeat"),
            _ => None,
        }
    }

    fn sent(&mut self, bytes: usize, now: Timestamp) -> Sent {
        let (polling, left) = self.receiver.unwrap();
        self.opened = true;
        self.quiet_since = now;
        let left = left.saturating_sub(bytes);
        if polling || self.closing || left == 0 {
            self.receiver = None;
            self.vacant_since = now;
            return Sent::Ends;
        }
        self.receiver = Some((polling, left));
        Sent::More
    }

    fn wait(&mut self, now: Timestamp) {
        if self.receiver.is_none() && now.since(self.vacant_since) >= secs(5) {
            self.over = true;
        }
    }
}

fn drive(
    session: &mut Session,
    model: &mut Model,
    data: Option<usize>,
    id: ReceiverId,
    now: Timestamp,
) {
    let bytes = match (session.poll(id, now), model.expected(now)) {
        (Step::Write(Frame::Close(_)), Some("close")) => 20,
        (Step::Write(Frame::Open), Some("open")) => 2,
        (Step::Write(Frame::Heartbeat), Some("heartbeat")) => 2,
        (Step::Ask { budget, until }, None) => {
            assert_eq!(budget, model.receiver.unwrap().1);
            assert_eq!(until, model.quiet_since + secs(25));
            match data {
                Some(bytes) => bytes,
                None => return,
            }
        }
        (step, expected) => panic!("{step:?} instead of {expected:?}"),
    };
    assert_eq!(session.sent(id, bytes, now), model.sent(bytes, now));
    // The driver takes the bytes at once and comes back.
    if session.is_attached(id) {
        session.attached.as_mut().unwrap().handed_at = None;
    }
}

proptest! {
    #[test]
    fn the_session_follows_the_model(actions in actions()) {
        let mut session = session();
        let mut model = Model {
            opened: false,
            closing: false,
            over: false,
            receiver: None,
            quiet_since: T0,
            vacant_since: T0,
        };
        let (mut now, mut id) = (T0, ReceiverId(0));
        for action in actions {
            match action {
                Action::Attach { polling } => {
                    let attached = session.attach(if polling { POLL } else { STREAM }, now);
                    prop_assert_eq!(attached.map(|_| ()), model.attach(polling, now));
                    id = attached.unwrap_or(id);
                }
                Action::Drive { has_data } if model.receiver.is_some() => {
                    drive(&mut session, &mut model, has_data, id, now);
                }
                Action::Drive { .. } => prop_assert_eq!(session.poll(id, now), Step::End),
                Action::Lose => {
                    session.lost(id);
                    model.over |= model.receiver.take().is_some();
                }
                Action::Close => {
                    session.close(Close::normal());
                    model.closing |= !model.over;
                }
                Action::Wait { millis } => {
                    now = now + Duration::from_millis(millis);
                    session.handle_timeout(now);
                    model.wait(now);
                }
            }
            prop_assert_eq!(session.is_over(), model.over);
            prop_assert_eq!(session.is_attached(id), model.receiver.is_some());
            prop_assert_eq!(session.takes_messages(), !model.over && !model.closing);
        }
    }
}
