//! What the embedded store can take: answers appended, and a large catalog read at start.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::clock::Timestamp;
use answerback::results::{Answer, Campaign, HostId, QueryId, Question, Rules, UserId};
use answerback::store::contract::encode;
use answerback::store::embedded::{EmbeddedStore, Fsync, Settings};
use answerback::store::{Appended, Change, Expect, Store, Stored};
use answerback::wake::WakeSlot;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roaring::RoaringBitmap;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NOW: Timestamp = Timestamp::from_secs(1_000);
const BODY_BYTES: usize = 1_024;
const RECORDS: usize = 300_000;
const RECORD_BYTES: usize = 600;
/// So many appends share a campaign, so that its file stays small.
const HOSTS: u32 = 100_000;

struct Bench {
    runtime: Runtime,
    store: Arc<EmbeddedStore>,
    /// Removed when the bench is over.
    _directory: TempDir,
}

impl Bench {
    fn open(threads: usize, fsync: Fsync) -> Self {
        let directory = TempDir::new().unwrap();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        let settings = Settings {
            dir: directory.path().to_owned(),
            rules: Rules::default(),
            log_bytes_max: 64 << 20,
            accept_loss: false,
            logs_bytes_max: 1 << 30,
            fsync,
            encode,
        };
        let store = runtime
            .block_on(EmbeddedStore::open(settings, NOW))
            .unwrap();
        let _directory = directory;
        Self {
            runtime,
            store,
            _directory,
        }
    }

    fn campaign(&self, hosts: u32) -> Campaign {
        let question = Question {
            query_id: QueryId(1),
            query_name: None,
            user_id: UserId(1),
            sql: "SELECT 1".into(),
            targets: Arc::new(RoaringBitmap::from_iter(1..=hosts)),
            teams: Vec::new(),
        };
        self.runtime
            .block_on(self.store.create(question, NOW))
            .unwrap()
    }

    /// Appends so often, shared by so many tasks, while so many readers are rung.
    fn append(&self, mut times: u64, tasks: u32, readers: usize) -> Duration {
        let mut spent = Duration::ZERO;
        while times > 0 {
            let hosts = u32::try_from(times).unwrap_or(HOSTS).min(HOSTS);
            spent += self.append_to_one(hosts, tasks, readers);
            times -= u64::from(hosts);
        }
        spent
    }

    fn append_to_one(&self, hosts: u32, tasks: u32, readers: usize) -> Duration {
        let campaign = self.campaign(hosts).id;
        let log = self
            .runtime
            .block_on(self.store.follow(campaign))
            .unwrap()
            .unwrap();
        for _ in 0..readers {
            log.subscribe(&WakeSlot::default());
        }
        let body = Bytes::from(vec![b'x'; BODY_BYTES]);
        let started = Instant::now();
        let work: Vec<_> = (0..tasks)
            .map(|task| {
                let (store, body) = (Arc::clone(&self.store), body.clone());
                self.runtime.spawn(async move {
                    for host in (1..=hosts).skip(task as usize).step_by(tasks as usize) {
                        let answer = Answer {
                            host: HostId(host),
                            failed: false,
                            body: body.clone(),
                        };
                        let appended = store.append(campaign, answer, NOW).await.unwrap();
                        assert!(matches!(appended, Appended::At(_)));
                    }
                })
            })
            .collect();
        for task in work {
            self.runtime.block_on(task).unwrap();
        }
        let spent = started.elapsed();
        self.forget_all();
        spent
    }

    fn forget_all(&self) {
        self.runtime.block_on(async {
            let later = NOW + Duration::from_secs(3_600);
            self.store.reap(later).await.unwrap();
            self.store
                .reap(later + Duration::from_secs(3_600))
                .await
                .unwrap();
        });
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}

fn append(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("append_1_kib");
    group.throughput(Throughput::Elements(1));
    for (name, threads, tasks, readers) in [
        ("one_task", 1, 1, 0),
        ("one_task_1000_readers", 2, 1, 1_000),
        ("64_tasks_on_2_threads", 2, 64, 0),
    ] {
        let store = Bench::open(threads, Fsync::Never);
        group.bench_function(name, |bench| {
            bench.iter_custom(|times| store.append(times, tasks, readers));
        });
    }
    let store = Bench::open(2, Fsync::Always);
    group.bench_function("64_tasks_synchronised", |bench| {
        bench.iter_custom(|times| store.append(times, 64, 0));
    });
    group.finish();
}

fn load(bench: &mut Criterion) {
    let store = Bench::open(2, Fsync::Never);
    let value = Bytes::from(vec![b'v'; RECORD_BYTES]);
    for first in (0..RECORDS).step_by(10_000) {
        let changes = (first..first + 10_000).map(|host| Change {
            kind: "host",
            key: host.to_string(),
            expect: Expect::Absent,
            value: Some(value.clone()),
        });
        let commit = store.store.commit(changes.collect());
        store.runtime.block_on(commit).unwrap();
    }
    let mut group = bench.benchmark_group("catalog");
    group.sample_size(10);
    group.bench_function("load_300000_records_of_600_bytes", |bench| {
        bench.iter(|| {
            let mut count = 0;
            let mut take = |records: Vec<Stored>| {
                count += records.len();
                Ok(())
            };
            let load = store.store.load(&mut take);
            store.runtime.block_on(load).unwrap();
            assert_eq!(count, RECORDS);
        });
    });
    group.bench_function("one_commit", |bench| {
        bench.iter(|| {
            let change = Change {
                kind: "host",
                key: "1".into(),
                expect: Expect::Anything,
                value: Some(value.clone()),
            };
            store
                .runtime
                .block_on(store.store.commit(vec![change]))
                .unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, append, load);
criterion_main!(benches);
