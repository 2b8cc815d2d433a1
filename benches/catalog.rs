//! The API over 300,000 hosts: whom a selection means, and pages of the list of hosts.
//!
//! Targets on one core: a selection under 50 ms, a page under 20 ms.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::hint::black_box;
use std::sync::Arc;

use answerback::api::{self, Api};
use answerback::auth::{self, Auth, Presets, bootstrap};
use answerback::catalog::entity::{Entity, Host, HostDetails};
use answerback::catalog::{Catalog, Edit, State, builtin};
use answerback::clock::{Clock, Timestamp};
use answerback::limits::rate::Allowance;
use answerback::net::TrustedProxies;
use answerback::results::{HostId, LabelId, Rules, TeamId};
use answerback::sockjs::payload;
use answerback::store::Store;
use answerback::store::embedded::{EmbeddedStore, Fsync, Settings};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use warp::filters::BoxedFilter;
use warp::reply::Response;

const HOSTS: u32 = 300_000;
const TEAMS: u32 = 20;
const TOKEN: &str = "abk_token_of_the_benches";
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn host(id: u32) -> Host {
    // Names in no order, as fleets have them.
    let name = format!("host-{:08x}.example.com", id.wrapping_mul(2_654_435_761));
    Host {
        id: HostId(id),
        identifier: format!("identifier-{id:08}"),
        node_key_hash: format!("{id:064x}"),
        team: Some(TeamId(1 + id % TEAMS)),
        enrolled_at: NOW.secs() - 1_000,
        detailed_at: NOW.secs(),
        labelled_at: NOW.secs(),
        distributed_interval: 10,
        config_tls_refresh: 0,
        details: HostDetails {
            uuid: format!("UUID-{id:08X}"),
            hardware_serial: format!("SERIAL{id:08}"),
            platform: "ubuntu".to_owned(),
            os_version: "Ubuntu 24.04".to_owned(),
            primary_ip: format!("10.{}.{}.{}", id >> 16, id >> 8 & 255, id & 255),
            hostname: name,
            ..HostDetails::default()
        },
        labels: vec![LabelId(3), LabelId(7)],
    }
}

async fn filter(dir: &std::path::Path) -> BoxedFilter<(Response,)> {
    let settings = Settings {
        dir: dir.to_owned(),
        rules: Rules::default(),
        log_bytes_max: 1 << 20,
        logs_bytes_max: 1 << 24,
        fsync: Fsync::Never,
        encode: payload::encode,
    };
    let store: Arc<dyn Store> = EmbeddedStore::open(settings, NOW).await.unwrap();
    let catalog = Arc::new(Catalog::load(Arc::clone(&store)).await.unwrap());
    builtin::furnish(&catalog, NOW).await.unwrap();
    let presets = Presets {
        api_token: Some(TOKEN.to_owned()),
        ..Presets::default()
    };
    bootstrap(&catalog, &presets, NOW).await.unwrap();
    let ids: Vec<u32> = (1..=HOSTS).collect();
    for chunk in ids.chunks(5_000) {
        let plan = |_: &State| {
            let hosts = chunk
                .iter()
                .map(|id| Edit::Put(Entity::Host(Box::new(host(*id)))));
            Ok::<_, ()>((hosts.collect(), ()))
        };
        catalog.commit(plan).await.unwrap();
    }
    for id in ids.iter().step_by(2) {
        catalog.presence().touch(HostId(*id), NOW);
    }
    let parts = api::Parts {
        catalog: Arc::clone(&catalog),
        store,
        auth: Arc::new(Auth::new(catalog, auth::Settings::default())),
        clock: Clock::manual(NOW),
        proxies: TrustedProxies::default(),
        tasks: TaskTracker::new(),
        node: "bench".to_owned(),
    };
    let settings = api::Settings {
        campaigns: Allowance {
            burst: std::num::NonZeroU32::MAX,
            every: std::time::Duration::from_nanos(1),
        },
        ..api::Settings::default()
    };
    api::routes(Api::new(parts, settings))
}

async fn call(
    filter: &BoxedFilter<(Response,)>,
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> Bytes {
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1/fleet{path}"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Full::new(body.into()))
        .unwrap();
    let reply = warp::service(filter.clone()).call(request).await.unwrap();
    assert_eq!(reply.status(), 200, "{path}");
    reply.into_body().collect().await.unwrap().to_bytes()
}

fn catalog(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let filter = runtime.block_on(filter(dir.path()));
    let some: Vec<u32> = (1..=HOSTS).step_by(30).collect();
    let selections = [
        ("all hosts", r#"{"labels": [1]}"#.to_owned()),
        (
            "labels and teams",
            r#"{"labels": [3, 7], "teams": [1, 2, 3, 4, 5]}"#.to_owned(),
        ),
        (
            "10,000 hosts by number",
            format!(r#"{{"hosts": {some:?}}}"#),
        ),
    ];
    let mut group = criterion.benchmark_group("selection of 300,000 hosts");
    group.sample_size(20);
    for (name, selected) in &selections {
        let body = format!(r#"{{"query": "select 1", "selected": {selected}}}"#);
        for (what, path) in [
            ("counted", "/targets/count"),
            ("campaign made", "/queries/run"),
        ] {
            group.bench_function(format!("{what}: {name}"), |bencher| {
                let one =
                    || black_box(runtime.block_on(call(&filter, Method::POST, path, body.clone())));
                bencher.iter(one);
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("page of 300,000 hosts");
    group.sample_size(20);
    for (name, asked) in [
        ("first, by number", "per_page=100"),
        ("last, by number", "per_page=100&page=2999"),
        ("first, by hostname", "per_page=100&order_key=hostname"),
        (
            "last but few, by hostname",
            "per_page=100&page=2000&order_key=hostname",
        ),
        ("by a frequent text", "per_page=100&query=host-"),
        ("by a rare text", "per_page=100&query=SERIAL00299999"),
        ("online", "per_page=100&status=online"),
    ] {
        let path = format!("/hosts?{asked}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(runtime.block_on(call(&filter, Method::GET, &path, ""))));
        });
    }
    group.finish();
}

criterion_group!(benches, catalog);
criterion_main!(benches);
