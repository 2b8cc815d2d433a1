//! The API over 300,000 hosts, 200 labels and 50 teams: whom a selection means, and pages of the list of hosts.
//!
//! Targets on one core: a selection under 50 ms, a page under 20 ms. Says what the catalog takes of memory.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a bench says what it has measured")]

use std::hint::black_box;
use std::sync::Arc;

use answerback::api::{self, Api};
use answerback::auth::{self, Auth, Presets, bootstrap};
use answerback::catalog::entity::{Entity, Host, HostDetails, Label, Membership, Team};
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
const TEAMS: u32 = 50;
/// Labels in all, the builtin ones among them.
const LABELS: u32 = 200;
/// The first label that is not builtin.
const FIRST_LABEL: u32 = 51;
/// Of the labels, so many are manual, each with [`NAMES`] hosts.
const MANUAL: u32 = 10;
/// Host names of one selection, and of one manual label.
const NAMES: u32 = 1_000;
const TOKEN: &str = "abk_token_of_the_benches";
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Names in no order, as fleets have them.
fn host_name(id: u32) -> String {
    format!("host-{:08x}.example.com", id.wrapping_mul(2_654_435_761))
}

/// Dynamic labels of every size, and some manual ones.
fn labels(builtin: u32) -> impl Iterator<Item = Entity> {
    (FIRST_LABEL..FIRST_LABEL + LABELS - builtin).map(|id| {
        let manual = id < FIRST_LABEL + MANUAL;
        let hosts = (1..=NAMES).map(|at| host_name(at * 257 + id));
        Entity::Label(Label {
            id: LabelId(id),
            name: format!("label {id}"),
            description: String::new(),
            query: "select 1".to_owned(),
            platform: String::new(),
            builtin: false,
            membership: if manual {
                Membership::Manual
            } else {
                Membership::Dynamic
            },
            hosts: if manual { hosts.collect() } else { Vec::new() },
        })
    })
}

fn teams() -> impl Iterator<Item = Entity> {
    (1..=TEAMS).map(|id| {
        Entity::Team(Team {
            id: TeamId(id),
            name: format!("team {id}"),
            description: String::new(),
            agent_options: None,
            created_at: NOW.secs(),
        })
    })
}

/// Two builtin labels, and one in every so many of the dynamic ones.
fn labels_of(id: u32) -> Vec<LabelId> {
    let own = (FIRST_LABEL + MANUAL..FIRST_LABEL + LABELS).filter(|label| {
        let every = 2 + label % 40;
        id.wrapping_mul(2_654_435_761).wrapping_add(*label) % every == 0
    });
    [8, 12].into_iter().chain(own).map(LabelId).collect()
}

fn host(id: u32) -> Host {
    Host {
        id: HostId(id),
        identifier: format!("identifier-{id:08}"),
        node_key_hash: format!("{id:064x}"),
        team: Some(TeamId(1 + id % TEAMS)),
        twin: 0,
        home: None,
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
            hostname: host_name(id),
            ..HostDetails::default()
        },
        labels: labels_of(id),
    }
}

/// What this process holds of memory, in KiB; 0 where the system does not tell.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

async fn store(dir: &std::path::Path) -> Arc<dyn Store> {
    let settings = Settings {
        dir: dir.to_owned(),
        rules: Rules::default(),
        log_bytes_max: 1 << 20,
        accept_loss: false,
        logs_bytes_max: 1 << 24,
        fsync: Fsync::Never,
        encode: payload::encode,
    };
    EmbeddedStore::open(settings, NOW).await.unwrap()
}

async fn filter(dir: &std::path::Path) -> BoxedFilter<(Response,)> {
    let store = store(dir).await;
    let catalog = Arc::new(Catalog::load(Arc::clone(&store)).await.unwrap());
    builtin::furnish(&catalog, NOW).await.unwrap();
    let presets = Presets {
        api_token: Some(TOKEN.to_owned()),
        ..Presets::default()
    };
    bootstrap(&catalog, &presets, NOW, |_| {}).await.unwrap();
    let builtin = u32::try_from(catalog.read().labels.len()).unwrap();
    let plan =
        |_: &State| Ok::<_, ()>((labels(builtin).chain(teams()).map(Edit::Put).collect(), ()));
    catalog.commit(plan).await.unwrap();
    let before = resident_kib();
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
    let taken = resident_kib() - before;
    println!(
        "memory: {} MiB for {HOSTS} hosts, {} bytes each, with {} labels and {TEAMS} teams",
        taken / 1024,
        taken * 1024 / u64::from(HOSTS),
        catalog.read().labels.len(),
    );
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
    let status = reply.status();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, 200, "{path}: {body:?}");
    body
}

fn catalog(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let filter = runtime.block_on(filter(dir.path()));
    selections(criterion, &runtime, &filter);
    pages(criterion, &runtime, &filter);
}

fn selections(criterion: &mut Criterion, runtime: &Runtime, filter: &BoxedFilter<(Response,)>) {
    let some: Vec<u32> = (1..=HOSTS).step_by(30).collect();
    let names: Vec<String> = (1..=NAMES).map(|at| host_name(at * 299)).collect();
    let selections = [
        ("all hosts", "run", r#"{"labels": [6]}"#.to_owned()),
        (
            "three labels and two teams",
            "run",
            r#"{"labels": [8, 70, 100], "teams": [1, 2]}"#.to_owned(),
        ),
        (
            "a manual label",
            "run",
            format!(r#"{{"labels": [{FIRST_LABEL}]}}"#),
        ),
        (
            "10,000 hosts by number",
            "run",
            format!(r#"{{"hosts": {some:?}}}"#),
        ),
        (
            "1,000 hosts by name",
            "run_by_names",
            format!(r#"{{"hosts": {names:?}}}"#),
        ),
    ];
    let mut group = criterion.benchmark_group("selection of 300,000 hosts");
    group.sample_size(20);
    for (name, route, selected) in &selections {
        let body = format!(r#"{{"query": "select 1", "selected": {selected}}}"#);
        let path = format!("/queries/{route}");
        let mut paths = vec![("campaign made", path.as_str())];
        if *route == "run" {
            paths.push(("counted", "/targets/count"));
        }
        for (what, path) in paths {
            group.bench_function(format!("{what}: {name}"), |bencher| {
                let one =
                    || black_box(runtime.block_on(call(filter, Method::POST, path, body.clone())));
                bencher.iter(one);
            });
        }
    }
    group.finish();
}

fn pages(criterion: &mut Criterion, runtime: &Runtime, filter: &BoxedFilter<(Response,)>) {
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
        (
            "of a label and a team",
            "per_page=100&label_id=70&team_id=7",
        ),
    ] {
        let path = format!("/hosts?{asked}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(runtime.block_on(call(filter, Method::GET, &path, ""))));
        });
    }
    group.finish();
}

criterion_group!(benches, catalog);
criterion_main!(benches);
