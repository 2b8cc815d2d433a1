//! Viewers' conversations in this process, on the embedded store: what happens when the log cannot give what follows.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use answerback::auth::{self, Auth, Presets, Purpose, bootstrap};
use answerback::catalog::entity::{Entity, Host, HostDetails};
use answerback::catalog::{Catalog, Edit, State};
use answerback::clock::{Clock, Timestamp};
use answerback::results::{
    Answer, Campaign, Ending, HostId, QueryId, Question, Rules, Seq, UserId,
};
use answerback::sockjs::{Form, Transport, payload};
use answerback::store::Store;
use answerback::store::embedded::{EmbeddedStore, Fsync, Settings};
use answerback::transport::{Application, Conversation, Next, Opened, WakeSlot};
use answerback::viewers::Viewers;
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::{PASSWORD, TOKEN};

const START: Timestamp = Timestamp::from_secs(1_000_000);
const HOSTS: u32 = 40;
/// What one viewer takes at a time.
const BUDGET: usize = 8 * 1024;

fn host(id: u32) -> Host {
    Host {
        id: HostId(id),
        identifier: format!("host {id}"),
        node_key_hash: format!("{id:064x}"),
        team: None,
        twin: 0,
        home: None,
        enrolled_at: START.secs(),
        detailed_at: 0,
        labelled_at: 0,
        distributed_interval: 10,
        config_tls_refresh: 0,
        details: HostDetails::default(),
        labels: Vec::new(),
    }
}

/// A campaign whose answers are four times as long as what memory keeps of them.
struct Stage {
    store: Arc<EmbeddedStore>,
    auth: Arc<Auth>,
    clock: Clock,
    viewers: Viewers,
    campaign: Campaign,
    _dir: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let dir = TempDir::new().unwrap();
        let settings = Settings {
            dir: dir.path().join("data"),
            rules: Rules::default(),
            log_bytes_max: 256 * 1024,
            accept_loss: false,
            logs_bytes_max: 1 << 30,
            fsync: Fsync::Never,
            encode: payload::encode,
        };
        let store = EmbeddedStore::open(settings, START).await.unwrap();
        let catalog = Arc::new(Catalog::load(store.clone()).await.unwrap());
        let presets = Presets {
            email: Some("admin@example.com".to_owned()),
            password: Some(PASSWORD.to_owned()),
            api_token: Some(TOKEN.to_owned()),
        };
        bootstrap(&catalog, &presets, START, |_| {}).await.unwrap();
        let plan = |_: &State| {
            let hosts = (1..=HOSTS).map(|id| Edit::Put(Entity::Host(Box::new(host(id)))));
            Ok::<_, ()>((hosts.collect(), ()))
        };
        catalog.commit(plan).await.unwrap();
        let auth = Arc::new(Auth::new(Arc::clone(&catalog), auth::Settings::default()));
        let clock = Clock::manual(START);
        let viewers = Viewers::new(
            store.clone(),
            catalog,
            Arc::clone(&auth),
            clock.clone(),
            "a".to_owned(),
        );
        let question = Question {
            query_id: QueryId(1),
            query_name: None,
            user_id: UserId(1),
            sql: "select 1".to_owned(),
            targets: Arc::new((1..=HOSTS).collect()),
            teams: Vec::new(),
        };
        let campaign = store.create(question, START).await.unwrap();
        Self {
            store,
            auth,
            clock,
            viewers,
            campaign,
            _dir: dir,
        }
    }

    /// A viewer that has selected the campaign and heard the totals.
    async fn viewer(&self) -> Watching {
        self.viewer_with(TOKEN).await
    }

    async fn viewer_with(&self, token: &str) -> Watching {
        let wake_slot = WakeSlot::default();
        let opened = Opened {
            transport: Transport::RawWebSocket,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            prefix: "/results".into(),
            wake_slot: wake_slot.clone(),
        };
        let mut conversation = self.viewers.open(opened, START);
        for message in [
            json!({ "type": "auth", "data": { "token": token } }),
            json!({ "type": "select_campaign", "data": { "campaign_id": self.campaign.id.0 } }),
        ] {
            conversation.message(&message.to_string(), START);
        }
        let mut watching = Watching {
            conversation,
            wake_slot,
        };
        let told = watching.next().await;
        let Next::Messages(messages) = told else {
            panic!("no totals: {told:?}");
        };
        assert_eq!(parsed(&messages[0])["type"], "totals");
        watching
    }

    async fn all_answer(&self) {
        for host in 1..=HOSTS {
            let body = format!(
                r#""host":{{"id":{host}}},"rows":["{}"],"error":null"#,
                "x".repeat(25_000)
            );
            let answer = Answer {
                host: HostId(host),
                failed: false,
                body: Bytes::from(body),
            };
            self.store
                .append(self.campaign.id, answer, START)
                .await
                .unwrap();
        }
    }
}

struct Watching {
    conversation: Box<dyn Conversation>,
    wake_slot: WakeSlot,
}

impl Watching {
    /// What a driver would get, once there is something.
    async fn next(&mut self) -> Next {
        let asking = async {
            loop {
                match self.conversation.next(Form::RawFrame, BUDGET, START) {
                    Next::Wait => self.wake_slot.notified().await,
                    next => return next,
                }
            }
        };
        let next = tokio::time::timeout(Duration::from_secs(20), asking).await;
        next.expect("something comes")
    }

    /// The results that come before anything else, and what does then.
    async fn results(&mut self) -> (usize, Next) {
        let mut count = 0;
        loop {
            match self.next().await {
                Next::Slice(slice) => count += slice.messages,
                next => return (count, next),
            }
        }
    }

    /// Fails unless these results were told to be missing before a normal close.
    async fn assert_told(&mut self, told: &Next, first: u32, last: u32) {
        let Next::Messages(messages) = told else {
            panic!("{told:?}");
        };
        let error = parsed(&messages[0]);
        assert_eq!(error["type"], "error");
        let text = error["data"].as_str().unwrap();
        assert!(text.starts_with(&format!("results {first} to ")), "{text}");
        let end: u32 = text.split(' ').nth(3).unwrap().parse().unwrap();
        assert!(
            end <= last && text.ends_with("are no longer kept"),
            "{text}"
        );
        assert!(matches!(self.next().await, Next::Close { code: 1000, .. }));
    }
}

fn parsed(message: &[u8]) -> Value {
    serde_json::from_slice(message).unwrap()
}

#[tokio::test]
async fn what_memory_has_dropped_is_read_back() {
    let stage = Stage::set().await;
    let mut watching = stage.viewer().await;
    stage.all_answer().await;
    let (count, _) = watching.results().await;
    assert_eq!(count, HOSTS as usize);
}

#[tokio::test]
async fn results_that_are_forgotten_before_a_viewer_has_read_them_are_told_to_be_missing() {
    let stage = Stage::set().await;
    let mut watching = stage.viewer().await;
    stage.all_answer().await;
    let id = stage.campaign.id;
    assert!(stage.store.end(id, Ending::Stopped, START).await.unwrap());
    stage
        .store
        .reap(START + Rules::default().retention)
        .await
        .unwrap();
    let (count, told) = watching.results().await;
    assert_eq!(count, 0, "positions were left out");
    watching.assert_told(&told, 1, HOSTS).await;
}

#[tokio::test]
async fn results_that_a_failover_replaced_are_not_read_back_from_the_store() {
    let stage = Stage::set().await;
    let mut watching = stage.viewer().await;
    stage.all_answer().await;
    let log = stage
        .store
        .follow(stage.campaign.id)
        .await
        .unwrap()
        .unwrap();
    log.fork(Seq(5));
    let (count, told) = watching.results().await;
    assert_eq!(count, 5, "up to there both are the same");
    watching.assert_told(&told, 6, HOSTS).await;
}

#[tokio::test]
async fn a_session_that_has_run_out_ends_its_streams_without_any_occasion() {
    let stage = Stage::set().await;
    let day = Duration::from_secs(24 * 3600);
    let purpose = Purpose::Program {
        name: "viewer".to_owned(),
        expires_at: Some((START + day).secs()),
    };
    let token = stage.auth.issue(UserId(1), purpose, START).await.unwrap();
    let mut watching = stage.viewer_with(&token).await;
    let mut forever = stage.viewer().await;
    let viewers = stage.viewers.clone();
    let running = tokio::spawn(async move { viewers.run().await });
    stage.clock.advance(day);
    let told = loop {
        let Next::Messages(messages) = watching.next().await else {
            panic!("no message");
        };
        let last = parsed(messages.last().unwrap());
        if last["type"] == "error" {
            break last;
        }
    };
    assert_eq!(
        (&told["code"], &told["final"]),
        (&json!("unauthorized"), &json!(true))
    );
    assert!(matches!(
        watching.next().await,
        Next::Close { code: 1000, .. }
    ));
    // A program's token does not run out.
    loop {
        match forever.conversation.next(Form::RawFrame, BUDGET, START) {
            Next::Wait => break,
            Next::Messages(messages) => {
                assert!(messages.iter().all(|one| parsed(one)["type"] != "error"));
            }
            next => panic!("{next:?}"),
        }
    }
    running.abort();
}
