//! Tests of a viewer's conversation: what goes in, and exactly what comes out.

use super::*;

const AUTH: &str = r#"{"type":"auth","data":{"token":"t"}}"#;
const SELECT: &str = r#"{"type":"select_campaign","data":{"campaign_id":12}}"#;

fn at(millis: u64) -> Timestamp {
    Timestamp(1_000_000 + millis)
}

fn tick(number: u64, count: u64, online: u64) -> Tick {
    let totals = Totals {
        count,
        online,
        offline: count - online,
        missing_in_action: 0,
        epoch: 0,
    };
    Tick {
        number,
        totals,
        ended: None,
    }
}

fn drain(viewer: &mut Viewer) -> Vec<String> {
    std::iter::from_fn(|| viewer.poll_message())
        .map(|message| String::from_utf8(message.to_vec()).unwrap())
        .collect()
}

fn authenticate() -> Option<Command> {
    Some(Command::Authenticate { token: "t".into() })
}

fn select(campaign: u64, after: u64) -> Option<Command> {
    Some(Command::Select(Selection {
        campaign: CampaignId(campaign),
        after: Seq(after),
        epoch: None,
    }))
}

fn authenticated() -> Viewer {
    let mut viewer = Viewer::new(at(0));
    assert_eq!(viewer.handle_message(AUTH), authenticate());
    assert_eq!(viewer.handle_authenticated(Ok(())), None);
    viewer
}

fn watching(tick: Tick, last: u64) -> Viewer {
    let mut viewer = authenticated();
    assert_eq!(viewer.handle_message(SELECT), select(12, 0));
    viewer.handle_selected(Ok((tick, Seq(last))));
    viewer
}

fn status(expected: u64, actual: u64, word: &str) -> String {
    format!(
        r#"{{"type":"status","data":{{"expected_results":{expected},"actual_results":{actual},"status":"{word}"}}}}"#
    )
}

#[test]
fn both_messages_may_come_at_once() {
    let mut viewer = Viewer::new(at(0));
    assert_eq!(viewer.handle_message(AUTH), authenticate());
    assert_eq!(
        viewer.handle_message(SELECT),
        None,
        "waits for the token to be looked up"
    );
    assert_eq!(viewer.handle_authenticated(Ok(())), select(12, 0));
}

#[test]
fn arrays_of_objects_are_taken_as_a_courtesy() {
    let mut viewer = Viewer::new(at(0));
    assert_eq!(
        viewer.handle_message(&format!(" [{AUTH}, {SELECT}]")),
        authenticate()
    );
    assert_eq!(viewer.handle_authenticated(Ok(())), select(12, 0));
    let mut viewer = Viewer::new(at(0));
    assert_eq!(viewer.handle_message("[]"), None);
    assert_eq!(viewer.handle_message(&format!("[{AUTH}]")), authenticate());
}

#[test]
fn whatever_is_not_auth_first_is_closed_with_a_reason() {
    let deep = format!(
        r#"{{"type":"auth","data":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for first in [
        SELECT,
        "",
        "{",
        "null",
        "[1]",
        r#"{"type":"auth"}"#,
        r#"{"type":"auth","data":{"token":7}}"#,
        &deep,
    ] {
        let mut viewer = Viewer::new(at(0));
        assert_eq!(viewer.handle_message(first), None);
        assert!(drain(&mut viewer).is_empty());
        assert_eq!(viewer.poll_close(), Some((1008, "expected auth")));
    }
}

#[test]
fn an_unknown_token_is_told_unauthorized_and_closed() {
    let mut viewer = Viewer::new(at(0));
    viewer.handle_message(AUTH);
    assert_eq!(
        viewer.handle_authenticated(Err(StreamError::unauthorized())),
        None
    );
    assert_eq!(viewer.poll_close(), None, "the error goes first");
    assert_eq!(
        drain(&mut viewer),
        [r#"{"type":"error","data":"unauthorized","code":"unauthorized","final":true}"#]
    );
    assert_eq!(viewer.poll_close(), Some((1000, "unauthorized")));
}

#[test]
fn ten_seconds_are_there_to_authenticate_in() {
    let mut viewer = Viewer::new(at(0));
    viewer.handle_timeout(at(9_999));
    assert_eq!(viewer.poll_close(), None);
    viewer.handle_timeout(at(10_000));
    assert_eq!(
        viewer.poll_close(),
        Some((1008, "authentication timed out"))
    );
}

#[test]
fn a_minute_is_there_to_select_in() {
    let mut viewer = authenticated();
    assert_eq!(viewer.deadline(), Some(at(60_000)));
    viewer.handle_timeout(at(59_999));
    assert_eq!(viewer.poll_close(), None);
    viewer.handle_timeout(at(60_000));
    let told = Some((1008, "no campaign was selected in time"));
    assert_eq!(viewer.poll_close(), told);
    let mut viewer = watching(tick(1, 2, 2), 0);
    drain(&mut viewer);
    assert_eq!(viewer.deadline(), None);
    viewer.handle_timeout(at(99_999_999));
    assert_eq!(viewer.poll_close(), None);
}

#[test]
fn bad_choices_hear_the_texts_of_the_specification() {
    let cases = [
        ("{", "error reading select_campaign"),
        ("17", "error reading select_campaign"),
        (AUTH, "expected select_campaign"),
        (
            r#"{"type":"select_campaign"}"#,
            "error unmarshaling select_campaign data",
        ),
        (
            r#"{"type":"select_campaign","data":{"campaign_id":"12"}}"#,
            "error unmarshaling select_campaign data",
        ),
        (
            r#"{"type":"select_campaign","data":{"campaign_id":-1}}"#,
            "error unmarshaling select_campaign data",
        ),
        (
            r#"{"type":"select_campaign","data":{"campaign_id":18446744073709551616}}"#,
            "error unmarshaling select_campaign data",
        ),
        (
            r#"{"type":"select_campaign","data":{"campaign_id":0}}"#,
            "0 is not a valid campaign ID",
        ),
    ];
    for (message, text) in cases {
        let mut viewer = authenticated();
        assert_eq!(viewer.handle_message(message), None, "{message}");
        assert_eq!(
            drain(&mut viewer),
            [format!(
                r#"{{"type":"error","data":"{text}","code":"invalid_message","final":true}}"#
            )]
        );
        assert_eq!(viewer.poll_close(), Some((1000, text)));
    }
}

#[test]
fn totals_come_before_status_and_both_only_when_changed() {
    let mut viewer = watching(tick(1, 24, 6), 0);
    let totals = r#"{"type":"totals","data":{"count":24,"online":6,"offline":18,"missing_in_action":0,"epoch":0}}"#;
    assert_eq!(
        drain(&mut viewer),
        [totals.to_owned(), status(6, 0, "pending")]
    );
    viewer.handle_tick(tick(1, 24, 9), Seq(0));
    viewer.handle_tick(tick(2, 24, 6), Seq(0));
    assert!(
        drain(&mut viewer).is_empty(),
        "the same tick, and one that changed nothing"
    );
    viewer.handle_sent(Seq(2));
    viewer.handle_tick(tick(3, 24, 6), Seq(2));
    assert_eq!(drain(&mut viewer), [status(6, 2, "pending")]);
}

#[test]
fn finished_waits_for_the_cursor_and_stays() {
    let mut viewer = watching(tick(1, 10, 2), 5);
    drain(&mut viewer);
    viewer.handle_sent(Seq(4));
    viewer.handle_tick(tick(2, 10, 2), Seq(5));
    assert_eq!(
        drain(&mut viewer),
        [status(2, 4, "pending")],
        "one result is not sent yet"
    );
    viewer.handle_sent(Seq(5));
    viewer.handle_end();
    assert!(
        drain(&mut viewer).is_empty(),
        "others may still answer: that waits for a tick"
    );
    viewer.handle_tick(tick(3, 10, 2), Seq(5));
    assert_eq!(drain(&mut viewer), [status(2, 5, "finished")]);
    viewer.handle_tick(
        Tick {
            totals: Totals {
                online: 9,
                ..tick(4, 10, 2).totals
            },
            ..tick(4, 10, 2)
        },
        Seq(5),
    );
    assert_eq!(drain(&mut viewer).last(), Some(&status(9, 5, "finished")));
}

#[test]
fn when_nothing_can_follow_finished_comes_at_once() {
    let mut viewer = watching(tick(1, 3, 3), 0);
    drain(&mut viewer);
    viewer.handle_sent(Seq(3));
    viewer.handle_end();
    viewer.handle_end();
    assert_eq!(drain(&mut viewer), [status(3, 3, "finished")]);
}

#[test]
fn an_end_is_told_at_once_with_its_reason_and_finished_follows_the_results() {
    let ended = |actual, word, more: &str| {
        let status = status(3, actual, word);
        let head = status.strip_suffix("}}").unwrap();
        format!(r#"{head},"ended":{{"reason":"stopped"{more}}}}}}}"#)
    };
    let over = |number, by: Option<&str>| Tick {
        ended: Some(Arc::new(Ended {
            reason: "stopped",
            by: by.map(str::to_owned),
        })),
        ..tick(number, 30, 3)
    };
    let mut late = watching(over(1, None), 1);
    assert_eq!(drain(&mut late).last(), Some(&ended(0, "pending", "")));
    late.handle_sent(Seq(1));
    late.handle_end();
    assert_eq!(drain(&mut late), [ended(1, "finished", "")]);

    let mut viewer = watching(tick(1, 30, 3), 0);
    drain(&mut viewer);
    viewer.handle_tick(over(2, Some("a@example.com")), Seq(1));
    let by = r#","by":"a@example.com""#;
    assert_eq!(drain(&mut viewer), [ended(0, "pending", by)]);
    viewer.handle_tick(over(3, Some("a@example.com")), Seq(1));
    assert!(drain(&mut viewer).is_empty(), "once");
}

#[test]
fn with_nobody_online_the_first_status_is_finished() {
    let mut viewer = watching(tick(1, 5, 0), 0);
    assert_eq!(drain(&mut viewer).last(), Some(&status(0, 0, "finished")));
    assert_eq!(viewer.poll_close(), None, "late hosts may still answer");
}

#[test]
fn a_viewer_resumes_where_it_was_and_ignores_what_it_says_later() {
    let mut viewer = authenticated();
    let resume = r#"{"type":"select_campaign","data":{"campaign_id":12,"after":7,"epoch":1}}"#;
    let selection = Selection {
        campaign: CampaignId(12),
        after: Seq(7),
        epoch: Some(1),
    };
    assert_eq!(
        viewer.handle_message(resume),
        Some(Command::Select(selection))
    );
    assert_eq!(viewer.cursor(), None);
    viewer.handle_selected(Ok((tick(1, 9, 9), Seq(8))));
    assert_eq!(viewer.cursor(), Some(Seq(7)));
    assert_eq!(viewer.handle_message(AUTH), None);
    assert_eq!(viewer.handle_message("{"), None);
    assert_eq!(viewer.poll_close(), None);
}

#[test]
fn a_failed_choice_is_told_and_closed() {
    let mut viewer = authenticated();
    viewer.handle_message(SELECT);
    viewer.handle_selected(Err(StreamError::campaign_not_found(CampaignId(12))));
    assert_eq!(
        drain(&mut viewer),
        [
            r#"{"type":"error","data":"cannot find campaign for ID 12","code":"campaign_not_found","final":true}"#
        ]
    );
    assert_eq!(
        viewer.poll_close(),
        Some((1000, "cannot find campaign for ID 12"))
    );
}

#[test]
fn messages_before_authentication_are_bounded() {
    let mut viewer = Viewer::new(at(0));
    viewer.handle_message(AUTH);
    for _ in 0..PENDING_MAX {
        viewer.handle_message(SELECT);
        assert_eq!(viewer.poll_close(), None);
    }
    viewer.handle_message(SELECT);
    assert!(viewer.poll_close().is_some());
    assert_eq!(viewer.handle_authenticated(Ok(())), None, "too late");
}
