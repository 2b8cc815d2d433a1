//! Every subcommand from its command line to its verdict, against the stub over real sockets.

use std::future::Future;
use std::sync::Arc;

use clap::Parser;

use crate::cli::Cli;
use crate::perform;
use crate::report::Report;
use crate::stub::{Stub, Vice, serve};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

async fn attempt(vice: Vice, line: &str) -> (anyhow::Result<Report>, Arc<Stub>) {
    let (address, stub) = serve(vice).await;
    let url = format!("http://{address}");
    let common = ["--url", &url, "--enroll-secret", "s3cret", "--json"];
    let words = std::iter::once("loadtest")
        .chain(line.split_whitespace())
        .chain(common);
    let mut words: Vec<&str> = words.collect();
    if !line.contains("--token") && !line.contains("--email") {
        words.extend(["--token", "t0ken"]);
    }
    let cli = Cli::try_parse_from(words).unwrap();
    (perform(cli).await, stub)
}

fn test(vice: Vice, line: &str) -> Report {
    block_on(async { attempt(vice, line).await.0.unwrap() })
}

fn metric(report: &Report, name: &str) -> f64 {
    report
        .metrics
        .get(name)
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn fan_out_reaches_viewers_on_every_transport_in_order_and_once() {
    let line = "fanout --viewers 12 --hosts 120 --transports all --verify full --failure-every 9 \
                --threads 2 --email a@b --password secret";
    let report = test(Vice::None, line);
    assert!(report.held(), "{}", report.text());
    assert_eq!(metric(&report, "results"), 120.0);
    assert_eq!(metric(&report, "deliveries"), 1440.0);
    assert_eq!(metric(&report, "jsonp.deliveries"), 240.0);
    assert_eq!(metric(&report, "closed"), 0.0);
    assert_eq!(report.complaints, Vec::<String>::new());
    assert!(metric(&report, "p99") > 0.0 && metric(&report, "setup_p99") > 0.0);
}

#[test]
fn scanning_finds_the_same_as_reading_in_full() {
    let line = "fanout --viewers 12 --hosts 50 --transports all --bytes 3000 --rate 500";
    let report = test(Vice::None, line);
    assert!(report.held(), "{}", report.text());
    assert_eq!(metric(&report, "deliveries"), 600.0);
}

#[test]
fn losses_repeats_and_swaps_are_seen_by_every_viewer() {
    let line = "fanout --viewers 4 --hosts 100 --transports raw,xhr --window 0 --drain 300ms";
    let lossy = test(Vice::Loses, line);
    assert_eq!(metric(&lossy, "lost"), 40.0);
    assert!(!lossy.held());
    let repeating = test(Vice::Repeats, line);
    assert_eq!(metric(&repeating, "duplicates"), 40.0);
    assert_eq!(metric(&repeating, "lost"), 0.0);
    let swapping = test(Vice::Swaps, line);
    assert_eq!(metric(&swapping, "misordered"), 80.0);
    assert_eq!(metric(&swapping, "lost"), 0.0);
}

#[test]
fn only_a_full_reading_sees_changed_rows() {
    let line = "fanout --viewers 2 --hosts 10 --transports ws --verify";
    let full = test(Vice::Corrupts, &format!("{line} full --drain 200ms"));
    assert_eq!(metric(&full, "malformed"), 20.0);
    let scan = test(Vice::Corrupts, &format!("{line} scan"));
    assert_eq!(metric(&scan, "malformed"), 0.0);
}

#[test]
fn several_campaigns_are_told_apart() {
    let line = "fanout --viewers 6 --hosts 40 --campaigns 3 --transports raw,eventsource --verify full \
                --read-first";
    let report = test(Vice::None, line);
    assert!(report.held(), "{}", report.text());
    assert_eq!(metric(&report, "deliveries"), 240.0);
}

#[test]
fn an_expectation_that_is_not_met_is_not_held() {
    let line = "fanout --viewers 1 --hosts 5 --expect p99<1ns --expect results=5";
    let report = test(Vice::None, line);
    assert!(!report.held());
    let text = report.text();
    assert!(text.contains("NOT HELD  p99"), "{text}");
    assert!(text.contains("held      results"), "{text}");
}

#[test]
fn a_test_that_cannot_be_run_says_why() {
    let line = "fanout --viewers 2 --hosts 2 --token wrong --ready 5s";
    let error = block_on(async { attempt(Vice::None, line).await.0.unwrap_err() });
    assert!(format!("{error:#}").contains("unauthorized"), "{error:#}");
    let line = "fanout --email a@b --password wrong";
    let error = block_on(async { attempt(Vice::None, line).await.0.unwrap_err() });
    assert!(format!("{error:#}").contains("Authentication failed"));
}

#[test]
fn a_storm_loses_nothing_and_repeats_nothing() {
    let line = "storm --viewers 12 --hosts 60 --reconnect 2 --transports all --rate 2000";
    let report = test(Vice::None, line);
    assert!(report.held(), "{}", report.text());
    assert_eq!(metric(&report, "deliveries"), 720.0);
    assert_eq!(metric(&report, "resumed"), 24.0);
    assert!(metric(&report, "setups_per_s") > 0.0);
    let line = format!("{line} --from-start --drain 1s");
    let report = test(Vice::None, &line);
    assert!(report.held(), "{}", report.text());
    assert!(metric(&report, "deliveries") > 720.0);
}

#[test]
fn a_fleet_checks_in_and_answers() {
    let line = "fleet --hosts 50 --interval 200ms --duration 1500ms --connections 8 --work 50ms \
                --threads 2 --repeating 0.5 --restarting 1 --expect agent_errors=0";
    let (report, _) = block_on(attempt(Vice::None, line));
    let report = report.unwrap();
    assert!(report.held(), "{}", report.text());
    let checkins = metric(&report, "checkins");
    assert!((250.0..=450.0).contains(&checkins), "{checkins}");
    assert!(metric(&report, "checkin_p99") > 0.0);
    let enrolled = &report
        .parameters
        .iter()
        .find(|(name, _)| *name == "enrolments");
    let enrolled: u64 = enrolled.unwrap().1.parse().unwrap();
    assert!(enrolled >= 50, "{enrolled}");
}

#[test]
fn a_soak_with_faults_of_every_kind_ends_in_a_verdict() {
    let line = "soak --viewers 10 --hosts 40 --transports raw,ws,xhr_streaming,eventsource,xhr,jsonp \
                --interval 300ms --work 100ms --repeating 0.2 --failing 0.1 --duration 2s --round 1s \
                --fault-every 300ms --stall 300ms --drain 2s";
    let (report, stub) = block_on(attempt(Vice::None, line));
    let report = report.unwrap();
    assert!(report.held(), "{}", report.text());
    assert!(metric(&report, "resumed") > 0.0, "{}", report.text());
    assert!(metric(&report, "deliveries") >= 400.0);
    assert!(stub.writes() as f64 > metric(&report, "results"));
}
