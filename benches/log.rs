//! What a log costs: answers appended in bursts, and read by viewers who follow in each form.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::hint::black_box;

use answerback::results::{Answer, CampaignId, HostId, Log, Read, Record, Seq};
use answerback::sockjs::{Form, payload};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Answers that come while all viewers are served once.
const BURST: usize = 32;
/// Bursts in one log.
const BURSTS: usize = 64;
/// Viewers who read each burst.
const VIEWERS: usize = 100;
const BUDGET: usize = 256 * 1024;

fn records() -> Vec<Record> {
    let row =
        r#"{"name":"systemd-resolved","path":"/usr/lib/systemd/systemd-resolved","uid":"101"}"#;
    let body =
        format!(r#""host":{{"id":7,"hostname":"web-1"}},"rows":[{row},{row},{row}],"error":null"#);
    let record = |number: usize| Record {
        seq: Seq(number as u64 + 1),
        answer: Answer {
            host: HostId(u32::try_from(number).unwrap()),
            failed: false,
            body: Bytes::from(body.clone()),
        },
    };
    (0..BURST * BURSTS).map(record).collect()
}

/// Appends every burst answer by answer, as agents do.
fn append(log: &mut Log, burst: &[Record]) {
    for record in burst {
        assert!(log.append(std::slice::from_ref(record)));
    }
}

fn fan_out(criterion: &mut Criterion) {
    let records = records();
    let empty = || Log::new(CampaignId(1), Seq(0), payload::encode);
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("append", |bencher| {
        bencher.iter(|| {
            let mut log = empty();
            records
                .chunks(BURST)
                .for_each(|burst| append(&mut log, burst));
            log
        });
    });
    group.throughput(Throughput::Elements((records.len() * VIEWERS) as u64));
    for form in Form::ALL {
        group.bench_function(
            BenchmarkId::new("append_and_read_100_times", format!("{form:?}")),
            |bencher| {
                bencher.iter(|| {
                    let mut log = empty();
                    let mut cursor = Seq(0);
                    for burst in records.chunks(BURST) {
                        append(&mut log, burst);
                        for _ in 0..VIEWERS {
                            black_box(log.read(cursor, form, BUDGET));
                        }
                        cursor = log.last();
                    }
                });
            },
        );
    }
    group.finish();
}

fn replay(criterion: &mut Criterion) {
    let records = records();
    let mut log = Log::new(CampaignId(1), Seq(0), payload::encode);
    assert!(log.append(&records));
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("read_all", |bencher| {
        bencher.iter(|| {
            let mut cursor = Seq(0);
            while let Read::Slice(slice, last) = log.read(cursor, Form::RawFrame, BUDGET) {
                black_box(slice);
                cursor = last;
            }
        });
    });
    group.finish();
}

criterion_group!(benches, fan_out, replay);
criterion_main!(benches);
