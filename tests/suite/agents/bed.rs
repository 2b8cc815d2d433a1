//! The agents' face alone, on a real store in a temporary directory, served over real sockets, with a clock that
//! tests move and a store that fails when told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use answerback::agents::log::SinkSettings;
use answerback::agents::{Agents, AgentsService, LogSink, Settings};
use answerback::catalog::entity::{EnrollSecret, Entity, Host};
use answerback::catalog::{Catalog, Edit, builtin};
use answerback::clock::{Clock, Timestamp};
use answerback::net::{self, Listener};
use answerback::results::{CampaignId, HostId, Question, Rules, Seq, TeamId};
use answerback::store::Store;
use answerback::store::contract::encode;
use answerback::store::embedded::{EmbeddedStore, Fsync};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use warp::{Filter, Reply};

use super::faulty::Faulty;

/// When every test begins.
const START: Timestamp = Timestamp::from_secs(2_000_000_000);
/// The secret that every bed has.
pub(super) const SECRET: &str = "global-secret";

/// A node: the face, its catalog, and its store.
pub(super) struct Bed {
    pub(super) address: SocketAddr,
    pub(super) clock: Clock,
    pub(super) store: Arc<Faulty>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) dir: Arc<TempDir>,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: DropGuard,
}

impl Bed {
    /// A node on a fresh store, with builtin labels and [`SECRET`].
    pub(super) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    /// A node with settings of its own.
    pub(super) async fn with(agents: Settings) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let settings = answerback::store::embedded::Settings {
            dir: dir.path().join("data"),
            rules: Rules::default(),
            log_bytes_max: 64 << 20,
            accept_loss: false,
            logs_bytes_max: 1 << 30,
            fsync: Fsync::Never,
            encode,
        };
        let store = EmbeddedStore::open(settings, START).await.unwrap();
        let store = Arc::new(Faulty::new(store));
        let bed = Self::node(store, Clock::manual(START), dir, agents).await;
        builtin::furnish(&bed.catalog, START).await.unwrap();
        bed.add_secret(SECRET, None).await;
        bed
    }

    /// Another node over the same store.
    pub(super) async fn second_node(&self) -> Self {
        Self::node(
            Arc::clone(&self.store),
            self.clock.clone(),
            Arc::clone(&self.dir),
            Settings::default(),
        )
        .await
    }

    async fn node(store: Arc<Faulty>, clock: Clock, dir: Arc<TempDir>, agents: Settings) -> Self {
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let catalog = Arc::new(Catalog::load(Arc::clone(&shared)).await.unwrap());
        let sink = SinkSettings::Files {
            directory: dir.path().to_owned(),
            bytes_max: 1 << 20,
            kept: 1,
        };
        let sink = LogSink::open(&sink, &TaskTracker::new()).unwrap();
        let agents = Agents::new(Arc::clone(&catalog), shared, clock.clone(), agents, sink);
        let settings = net::Settings::default();
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), &settings).unwrap();
        let address = listener.local_address().unwrap();
        let stop = CancellationToken::new();
        let nothing = warp::any().map(|| StatusCode::NOT_FOUND.into_response());
        let service = AgentsService::new(Arc::new(agents), net::Filtered(warp::service(nothing)));
        tokio::spawn(net::serve(listener, None, service, settings, stop.clone()));
        Self {
            address,
            clock,
            store,
            catalog,
            dir,
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            _stop: stop.drop_guard(),
        }
    }

    /// Moves the clock on.
    pub(super) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// POSTs JSON to a route.
    pub(super) async fn post(&self, route: &str, body: &Value) -> (u16, Value) {
        self.send(
            Method::POST,
            &format!("/api/osquery/{route}"),
            &[],
            body.to_string(),
        )
        .await
    }

    /// A request of any kind.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (u16, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let reply = self.client.request(request).await.unwrap();
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        (
            status,
            serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        )
    }

    /// Enrolls a host, and has it answer all that is asked of it at first, so that it is idle.
    pub(super) async fn idle_host(&self, name: &str) -> Agent<'_> {
        let agent = self.enroll(name, SECRET).await;
        let asked = agent.read().await["queries"].clone();
        let own = asked.as_object().unwrap().keys();
        let own: Vec<&String> = own.filter(|name| !name.contains("distributed")).collect();
        let answers = own.iter().map(|query| {
            let row = if query.ends_with("system_info") {
                json!([{ "hostname": name }])
            } else {
                json!([])
            };
            ((*query).clone(), row)
        });
        let answers: BTreeMap<String, Value> = answers.collect();
        assert_eq!(agent.write(json!({ "queries": answers })).await.0, 200);
        agent
    }

    /// Enrolls a host.
    pub(super) async fn enroll(&self, name: &str, secret: &str) -> Agent<'_> {
        let details = json!({
            "os_version": { "platform": "ubuntu", "name": "Ubuntu", "version": "22.04" },
            "system_info": { "hostname": name },
        });
        let body =
            json!({ "enroll_secret": secret, "host_identifier": name, "host_details": details });
        let (status, said) = self.post("enroll", &body).await;
        assert_eq!(status, 200, "{said}");
        let node_key = said["node_key"].as_str().unwrap().to_owned();
        Agent {
            bed: self,
            name: name.to_owned(),
            node_key,
        }
    }

    /// Puts entities into the catalog.
    pub(super) async fn put(&self, entities: impl IntoIterator<Item = Entity>) {
        let entities: Vec<Entity> = entities.into_iter().collect();
        let put = |_: &_| {
            let edits = entities.iter().cloned().map(Edit::Overwrite).collect();
            Ok::<_, ()>((edits, ()))
        };
        self.catalog.commit(put).await.unwrap();
    }

    /// Adds a way in.
    pub(super) async fn add_secret(&self, secret: &str, team: Option<TeamId>) {
        let secret = EnrollSecret {
            secret: secret.to_owned(),
            team,
            created_at: 0,
        };
        self.put([Entity::EnrollSecret(secret)]).await;
    }

    /// Starts a campaign.
    pub(super) async fn campaign(&self, sql: &str, hosts: &[HostId]) -> CampaignId {
        let question = Question {
            query_id: Default::default(),
            query_name: None,
            user_id: Default::default(),
            sql: sql.to_owned(),
            targets: Arc::new(hosts.iter().map(|host| host.0).collect()),
            teams: Vec::new(),
        };
        self.store
            .create(question, self.clock.now())
            .await
            .unwrap()
            .id
    }

    /// The answers in a campaign's log, as JSON.
    pub(super) async fn answers(&self, id: CampaignId) -> Vec<Value> {
        let records = self.store.read(id, Seq(0), 1 << 30).await.unwrap();
        let answers = records.iter().map(|record| {
            let text = format!("{{{}}}", std::str::from_utf8(&record.answer.body).unwrap());
            serde_json::from_str(&text).unwrap()
        });
        answers.collect()
    }

    /// What a file beside the store holds.
    pub(super) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

/// A host's osquery.
pub(super) struct Agent<'a> {
    pub(super) bed: &'a Bed,
    pub(super) name: String,
    pub(super) node_key: String,
}

impl Agent<'_> {
    /// Its record.
    pub(super) fn host(&self) -> Arc<Host> {
        let state = self.bed.catalog.read();
        let hash = answerback::auth::agent::hash(&self.node_key).unwrap();
        let same = state.hosts.by_node_key(&hash);
        // Its key may have died.
        let host = same.or_else(|| state.hosts.by_identifier(&self.name).next());
        Arc::clone(host.unwrap())
    }

    pub(super) fn id(&self) -> HostId {
        self.host().id
    }

    /// Checks in.
    pub(super) async fn read(&self) -> Value {
        let (status, said) = self
            .bed
            .post("distributed/read", &json!({ "node_key": self.node_key }))
            .await;
        assert_eq!(status, 200, "{said}");
        said
    }

    /// Whether a check-in gives it this campaign's query.
    pub(super) async fn is_given(&self, id: CampaignId) -> bool {
        let said = self.read().await;
        said["queries"].get(live(id)).is_some()
    }

    /// Posts a body with its node key, which osquery puts last.
    pub(super) async fn write(&self, mut body: Value) -> (u16, Value) {
        body["node_key"] = self.node_key.clone().into();
        self.bed.post("distributed/write", &body).await
    }

    /// Answers a campaign with these rows.
    pub(super) async fn answer(&self, id: CampaignId, rows: Value) -> (u16, Value) {
        self.write(json!({ "queries": { live(id): rows }, "statuses": { live(id): 0 } }))
            .await
    }

    /// Its configuration.
    pub(super) async fn config(&self) -> Value {
        let (status, said) = self
            .bed
            .post("config", &json!({ "node_key": self.node_key }))
            .await;
        assert_eq!(status, 200, "{said}");
        said
    }
}

/// The name of a campaign's query.
pub(super) fn live(id: CampaignId) -> String {
    format!("fleet_distributed_query_{id}")
}

/// Counts calls.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicUsize);

impl Tally {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// The calls since this was last asked.
    pub(super) fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}
