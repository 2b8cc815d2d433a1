//! How fast a host's answer becomes part of a log: from a `distributed/write` body to the bytes that are kept.

use std::hint::black_box;

use answerback::agents::wire::Body;
use answerback::agents::wire::answer::{HostHeader, reports};
use answerback::results::HostId;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A row of the `processes` table.
const ROW: &str = r#"{"name":"systemd-resolved","path":"/usr/lib/systemd/systemd-resolved","pid":"812","uid":"101","cmdline":"/lib/systemd/systemd-resolved --verbose","state":"S","resident_size":"13041664"}"#;
/// The same with what must be escaped in it.
const ESCAPED: &str = r#"{"name":"svchost.exe","path":"C:\\Windows\\System32\\svchost.exe","pid":812,"cmdline":"\"C:\\Windows\\System32\\svchost.exe\" -k netsvcs","state":null}"#;

fn body(row: &str, rows: usize) -> String {
    let rows = vec![row; rows].join(",");
    let name = "fleet_distributed_query_12";
    let key = "c2VjcmV0LW5vZGUta2V5LW9mLWEtaG9zdA";
    format!(
        r#"{{"queries":{{"{name}":[{rows}]}},"statuses":{{"{name}":0}},"messages":{{"{name}":""}},"node_key":"{key}"}}"#
    )
}

fn answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let voice = HostHeader::new(HostId(7), "web-1.example.com", "web-1");
    for (name, row) in [("plain", ROW), ("escaped", ESCAPED)] {
        for rows in [1, 2, 1_000] {
            let body = body(row, rows);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                bencher.iter(|| {
                    let body = Body::parse(black_box(&body));
                    let reports = reports(&body);
                    let answers = reports.values().map(|report| voice.answer(report).0);
                    answers.map(|answer| answer.body.len()).sum::<usize>()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, answers);
criterion_main!(benches);
