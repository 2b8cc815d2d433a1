//! Signals that a service or a terminal sends: none but those that ask for it ends the broker.

use std::time::Duration;

use crate::broker::Broker;
use rustix::process::{Pid, Signal, kill_process};

fn send(broker: &Broker, signal: Signal) {
    let pid = i32::try_from(broker.pid()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn signals_that_ask_nothing_of_a_server_do_not_end_it() {
    let broker = Broker::start(&[]).await;
    for signal in [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::PIPE,
        Signal::XFSZ,
    ] {
        send(&broker, signal);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(broker.get("/healthz").await.0, 200, "{signal:?}");
    }
}

#[tokio::test]
async fn quit_stops_it_in_order() {
    let broker = Broker::start(&[]).await;
    send(&broker, Signal::QUIT);
    let gone = async {
        while tokio::net::TcpStream::connect(broker.url("").trim_start_matches("http://"))
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("it stops");
}

#[tokio::test]
async fn a_campaign_with_a_viewer_outlives_a_standstill_of_the_machine() {
    let broker = Broker::start(&["--resume-grace-s", "0"]).await;
    let body = serde_json::json!({"enroll_secret": super::broker::SECRET, "host_identifier": "pc"});
    assert_eq!(broker.post("/api/osquery/enroll", body).await.0, 200);
    let campaign = broker.run_on_all("select 1").await;
    let mut viewer = super::viewer::Viewer::watch(&broker, campaign, 0).await;
    viewer.message().await;
    send(&broker, Signal::STOP);
    // Longer than the claim of its viewer holds.
    tokio::time::sleep(Duration::from_secs(18)).await;
    send(&broker, Signal::CONT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let path = format!("/api/v1/fleet/campaigns/{campaign}");
    let (_, said) = broker.get(&path).await;
    assert_eq!(said["campaign"]["state"], "running", "{said}");
}

#[tokio::test]
async fn a_stop_says_that_it_is_not_ready_before_the_port_closes() {
    let mut broker = Broker::start(&["--drain-s", "3"]).await;
    let began = std::time::Instant::now();
    send(&broker, Signal::TERM);
    let mut said = 0;
    while began.elapsed() < Duration::from_secs(2) {
        said = broker.get("/readyz").await.0;
        if said == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(said, 503);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        broker.get("/readyz").await.0,
        503,
        "the port is open while it drains"
    );
    assert!(broker.stop().await);
    assert!(began.elapsed() < Duration::from_secs(8));
}
