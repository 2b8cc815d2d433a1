//! What an idle check-in costs behind HTTP, with no campaign, and with many that ask other hosts.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::hint::black_box;
use std::sync::Arc;

use answerback::agents::{self, Agents, AgentsService, LogSink, log::SinkSettings};
use answerback::catalog::entity::{Entity, Host, HostDetails};
use answerback::catalog::{Catalog, Edit, State, builtin};
use answerback::clock::{Clock, Timestamp};
use answerback::net::{self, ConnInfo, IncomingRequest};
use answerback::results::{HostId, QueryId, Question, Rules, UserId};
use answerback::store::Store;
use answerback::store::embedded::{EmbeddedStore, Fsync, Settings};
use answerback::text;
use answerback::{auth::agent, sockjs::payload};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Request;
use http_body_util::{BodyExt, Full};
use roaring::RoaringBitmap;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use warp::{Filter, Reply};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOST: u32 = 7;
const NODE_KEY: &str = "bm9kZS1rZXktb2YtYS1ob3N0LW9mLXRoZS1iZW5jaA";
/// More targets than a campaign has that is indexed by host.
const LARGE: u32 = 2_000;

struct Bench {
    runtime: Runtime,
    store: Arc<EmbeddedStore>,
    agents: Arc<Agents>,
    /// Removed when the bench is over.
    _directory: tempfile::TempDir,
}

impl Bench {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let settings = Settings {
            dir: directory.path().to_owned(),
            rules: Rules::default(),
            log_bytes_max: 1 << 20,
            accept_loss: false,
            logs_bytes_max: 1 << 24,
            fsync: Fsync::Never,
            encode: payload::encode,
        };
        let (store, agents) = runtime.block_on(async {
            let store = EmbeddedStore::open(settings, NOW).await.unwrap();
            let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
            let catalog = Arc::new(Catalog::load(Arc::clone(&shared)).await.unwrap());
            builtin::furnish(&catalog, NOW).await.unwrap();
            let plan =
                |_: &State| Ok::<_, ()>((vec![Edit::Put(Entity::Host(Box::new(host())))], ()));
            catalog.commit(plan).await.unwrap();
            let sink = LogSink::open(&SinkSettings::Discard, &TaskTracker::new()).unwrap();
            let clock = Clock::manual(NOW);
            let settings = agents::Settings::default();
            let agents = Agents::new(catalog, shared, clock, settings, sink);
            (store, Arc::new(agents))
        });
        Self {
            runtime,
            store,
            agents,
            _directory: directory,
        }
    }

    fn campaign(&self, targets: RoaringBitmap) {
        let question = Question {
            query_id: QueryId(1),
            query_name: None,
            user_id: UserId(1),
            sql: "SELECT 1".into(),
            targets: Arc::new(targets),
            teams: Vec::new(),
        };
        self.runtime
            .block_on(self.store.create(question, NOW))
            .unwrap();
    }

    fn check_in(&self) -> Bytes {
        let body = format!(r#"{{"node_key":"{NODE_KEY}"}}"#);
        let request = Request::post("/api/osquery/distributed/read")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.runtime.block_on(async {
            let rest = warp::service(warp::any().map(warp::reply).map(Reply::into_response));
            let mut service = AgentsService::new(Arc::clone(&self.agents), net::Filtered(rest));
            let connection = ConnInfo {
                certified: false,
                peer: ([127, 0, 0, 1], 1).into(),
                tls: false,
                hands_over: false,
            };
            let arrival = IncomingRequest {
                connection,
                request,
            };
            let reply = service.call(arrival).await.unwrap();
            assert_eq!(reply.status(), 200);
            reply.into_body().collect().await.unwrap().to_bytes()
        })
    }
}

fn host() -> Host {
    Host {
        id: HostId(HOST),
        identifier: "host-7".to_owned(),
        node_key_hash: text::hex(agent::hash(NODE_KEY).unwrap()),
        team: None,
        twin: 0,
        home: None,
        enrolled_at: NOW.secs() - 1_000,
        detailed_at: NOW.secs(),
        labelled_at: NOW.secs(),
        distributed_interval: 10,
        config_tls_refresh: 0,
        details: HostDetails {
            platform: "ubuntu".to_owned(),
            hostname: "web-1".to_owned(),
            ..HostDetails::default()
        },
        labels: Vec::new(),
    }
}

fn check_in(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check_in");
    for (name, first, last) in [("small", 1_000, 1_000), ("large", 1_000, 1_000 + LARGE)] {
        for campaigns in [0, 1, 100, 1_000] {
            let bench = Bench::open();
            for _ in 0..campaigns {
                bench.campaign(RoaringBitmap::from_iter(first..=last));
            }
            // What the host is asked about itself comes first; then there is nothing.
            bench.check_in();
            group.bench_function(BenchmarkId::new(name, campaigns), |bencher| {
                bencher.iter(|| black_box(bench.check_in()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, check_in);
criterion_main!(benches);
