//! The API in this process on a free port, with an admin, and hosts put straight into the catalog.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use answerback::api::{self, Api};
use answerback::auth::{self, Auth, Presets, bootstrap, user::Cost};
use answerback::catalog::entity::{Entity, Host, HostDetails};
use answerback::catalog::{Catalog, Edit, State, builtin};
use answerback::clock::{Clock, Timestamp};
use answerback::net::{self, Listener, TrustedProxies};
use answerback::results::{Answer, CampaignId, HostId, LabelId, Rules, TeamId};
use answerback::sockjs::payload;
use answerback::store::embedded::{EmbeddedStore, Fsync, Settings};
use answerback::store::{Appended, Store};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::schema;

pub(super) const EMAIL: &str = "admin@example.com";
pub(super) const PASSWORD: &str = "correct horse battery staple";
pub(super) const TOKEN: &str = "abk_preset_token_of_the_tests";
pub(super) const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// No body.
pub(super) const NONE: Value = Value::Null;

pub(super) struct Server {
    pub(super) address: String,
    pub(super) catalog: Arc<Catalog>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    client: Client<HttpConnector, Full<Bytes>>,
    openapi: OnceLock<Value>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

/// An answer as it came.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.bytes.to_vec()).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_with(api::Settings {
            sync_period: Duration::from_secs(2),
            ..api::Settings::default()
        })
        .await
    }

    pub(super) async fn start_with(settings: api::Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let store = open(dir.path()).await;
        let catalog = Arc::new(Catalog::load(Arc::clone(&store)).await.unwrap());
        let presets = Presets {
            email: Some(EMAIL.to_owned()),
            password: Some(PASSWORD.to_owned()),
            api_token: Some(TOKEN.to_owned()),
        };
        bootstrap(&catalog, &presets, START, |_| {}).await.unwrap();
        builtin::furnish(&catalog, START).await.unwrap();
        let auth = auth::Settings {
            cost: Cost {
                memory_kib: 64,
                passes: 1,
            },
            failure_delay: Duration::from_millis(50),
            ..auth::Settings::default()
        };
        let parts = api::Parts {
            catalog: Arc::clone(&catalog),
            store: Arc::clone(&store),
            auth: Arc::new(Auth::new(Arc::clone(&catalog), auth)),
            clock: clock.clone(),
            proxies: TrustedProxies::default(),
            tasks: TaskTracker::new(),
            node: "node".to_owned(),
        };
        let stop = CancellationToken::new();
        let address = serve(api::routes(Api::new(parts, settings)), &stop);
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self {
            address,
            catalog,
            store,
            clock,
            client,
            openapi: OnceLock::new(),
            stop,
            _dir: dir,
        }
    }

    /// A request to any path, with these headers.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let url = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (head, body) = response.into_parts();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            bytes: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// A request below `/api/v1/fleet` with a token and a text as its body; answers that went well are held
    /// against the document.
    pub(super) async fn say(&self, token: &str, method: Method, path: &str, body: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let full = format!("/api/v1/fleet{path}");
        let reply = self
            .send(method.clone(), &full, &headers, body.to_owned())
            .await;
        if path.contains("/results") && reply.status == 200 {
            return reply;
        }
        let schema = self.schema_of(&method, path, reply.status).await;
        let root = self.openapi().await;
        let faults = schema::faults(&reply.json(), &schema, &root);
        assert!(
            faults.is_empty(),
            "{method} {path} {}: {faults:#?}",
            reply.status
        );
        reply
    }

    /// The same as the admin with JSON; the status and the answer.
    pub(super) async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.call_as(TOKEN, method, path, body).await
    }

    pub(super) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let reply = self.say(token, method, path, &body).await;
        (reply.status, reply.json())
    }

    /// What the admin hears, with this status.
    pub(super) async fn gives(
        &self,
        status: u16,
        method: Method,
        path: &str,
        body: Value,
    ) -> Value {
        self.gives_as(TOKEN, status, method, path, body).await
    }

    /// What the holder of a token hears, with this status.
    pub(super) async fn gives_as(
        &self,
        token: &str,
        status: u16,
        method: Method,
        path: &str,
        body: Value,
    ) -> Value {
        let (got, said) = self.call_as(token, method.clone(), path, body).await;
        assert_eq!(got, status, "{method} {path}: {said}");
        said
    }

    /// GET as the admin, which must go well.
    pub(super) async fn get(&self, path: &str) -> Value {
        self.gives(200, Method::GET, path, NONE).await
    }

    /// POST as the admin, which must go well.
    pub(super) async fn post(&self, path: &str, body: Value) -> Value {
        self.gives(200, Method::POST, path, body).await
    }

    pub(super) async fn openapi(&self) -> Value {
        if let Some(known) = self.openapi.get() {
            return known.clone();
        }
        let reply = self.send(Method::GET, "/api/openapi.json", &[], "").await;
        self.openapi.get_or_init(|| reply.json()).clone()
    }

    /// The schema of an answer, by the document.
    async fn schema_of(&self, method: &Method, path: &str, status: u16) -> Value {
        let root = self.openapi().await;
        if status != 200 {
            return root["components"]["schemas"]["Error"].clone();
        }
        let path = path.split('?').next().unwrap();
        let path = path
            .replace("/reports", "/queries")
            .replace("/fleets", "/teams");
        let path = path.replace("run_by_names", "run_by_identifiers");
        let paths = root["paths"].as_object().unwrap();
        let fits = |template: &&String| {
            let pairs = template.split('/').zip(path.split('/'));
            let same = template.split('/').count() == path.split('/').count();
            same && pairs
                .into_iter()
                .all(|(one, own)| one == own || one.starts_with('{'))
        };
        let template = paths
            .keys()
            .filter(fits)
            .min_by_key(|path| path.matches('{').count());
        let template = template.unwrap_or_else(|| panic!("{path} is not in the document"));
        let operation = &paths[template][method.as_str().to_lowercase()];
        let content = &operation["responses"]["200"]["content"]["application/json"];
        content["schema"].clone()
    }

    /// A host that has just checked in; its number.
    pub(super) async fn host(&self, name: &str, team: Option<u32>, labels: &[u32]) -> u32 {
        let id = self.catalog.reserve("host", 1).await.unwrap();
        let id = u32::try_from(id).unwrap();
        let host = Host {
            id: HostId(id),
            identifier: format!("identifier-{name}"),
            node_key_hash: format!("{id:064x}"),
            team: team.map(TeamId),
            twin: 0,
            home: None,
            enrolled_at: START.secs() - 7 * 24 * 3600,
            detailed_at: START.secs(),
            labelled_at: START.secs(),
            distributed_interval: 10,
            config_tls_refresh: 0,
            details: HostDetails {
                hostname: name.to_owned(),
                uuid: format!("UUID-{name}"),
                hardware_serial: format!("SERIAL-{name}"),
                platform: "ubuntu".to_owned(),
                primary_ip: format!("192.0.2.{id}"),
                ..HostDetails::default()
            },
            labels: labels.iter().copied().map(LabelId).collect(),
        };
        let put = Edit::Put(Entity::Host(Box::new(host)));
        let plan = |_: &State| Ok::<_, ()>((vec![put.clone()], ()));
        self.catalog.commit(plan).await.unwrap();
        self.check_in(id);
        id
    }

    /// The host is seen now.
    pub(super) fn check_in(&self, host: u32) {
        self.catalog
            .presence()
            .touch(HostId(host), self.clock.now());
    }

    /// A host answers a campaign with these rows.
    pub(super) async fn answer(&self, campaign: u64, host: u32, rows: Value, error: Option<&str>) {
        let name = self
            .catalog
            .read()
            .hosts
            .get(HostId(host))
            .unwrap()
            .hostname()
            .to_owned();
        let host_json = json!({"id": host, "hostname": name, "display_name": name});
        let error_json = json!(error);
        let body = format!(r#""host":{host_json},"rows":{rows},"stats":null,"error":{error_json}"#);
        let answer = Answer {
            host: HostId(host),
            failed: error.is_some(),
            body: body.into(),
        };
        let now = self.clock.now();
        let taken = self
            .store
            .append(CampaignId(campaign), answer, now)
            .await
            .unwrap();
        assert!(matches!(taken, Appended::At(_)), "{taken:?}");
    }

    /// A user with this global role, or none, and these roles in teams; their token.
    pub(super) async fn user(&self, role: Option<&str>, teams: &[(u32, &str)]) -> String {
        let teams: Vec<Value> = teams
            .iter()
            .map(|(id, role)| json!({"id": id, "role": role}))
            .collect();
        let body = json!({"name": "A program", "global_role": role, "teams": teams});
        let said = self.post("/users/api_only", body).await;
        said["token"].as_str().unwrap().to_owned()
    }

    /// A team; its number.
    pub(super) async fn team(&self, name: &str) -> u32 {
        let said = self.post("/teams", json!({"name": name})).await;
        u32::try_from(said["team"]["id"].as_u64().unwrap()).unwrap()
    }

    /// A campaign of the admin on these hosts; its number.
    pub(super) async fn campaign(&self, hosts: &[u32]) -> u64 {
        let body = json!({"query": "select 1", "selected": {"hosts": hosts}});
        let said = self.post("/queries/run", body).await;
        said["campaign"]["id"].as_u64().unwrap()
    }

    /// Waits for the next campaign that is active on the store.
    pub(super) async fn next_campaign(&self, after: u64) -> u64 {
        for _ in 0..500 {
            let ids = self.store.active().ids();
            if let Some(id) = ids.iter().map(|id| id.0).filter(|id| *id > after).min() {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no campaign came up");
    }
}

async fn open(dir: &std::path::Path) -> Arc<dyn Store> {
    let settings = Settings {
        dir: dir.to_owned(),
        rules: Rules::default(),
        log_bytes_max: 1 << 20,
        accept_loss: false,
        logs_bytes_max: 1 << 24,
        fsync: Fsync::Never,
        encode: payload::encode,
    };
    EmbeddedStore::open(settings, START).await.unwrap()
}

/// Serves a filter on a free port.
fn serve(
    filter: warp::filters::BoxedFilter<(warp::reply::Response,)>,
    stop: &CancellationToken,
) -> String {
    use warp::Filter;
    let not_found = |_| async {
        let reply = warp::reply::with_status("left to others", http::StatusCode::IM_A_TEAPOT);
        Ok::<_, std::convert::Infallible>(reply)
    };
    let settings = net::Settings::default();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &settings).unwrap();
    let address = listener.local_address().unwrap().to_string();
    let service = net::Filtered(warp::service(filter.recover(not_found)));
    tokio::spawn(net::serve(listener, None, service, settings, stop.clone()));
    address
}
