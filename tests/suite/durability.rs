//! The embedded store's first guarantee: what was acknowledged is there after kill -9, and after a full disk.
//!
//! The test starts itself again as a child that writes and prints each acknowledgement; what the pipe holds when
//! the child is killed is what somebody was told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::clock::Timestamp;
use answerback::results::{
    Answer, CampaignId, Ending, HostId, QueryId, Question, Rules, Seq, UserId,
};
use answerback::store::contract::encode;
use answerback::store::embedded::{EmbeddedStore, Fsync, Settings};
use answerback::store::{Appended, Change, Committed, Expect, Store, StoreError, load_all};
use bytes::Bytes;
use roaring::RoaringBitmap;
use tempfile::TempDir;
use tokio::task::JoinSet;

const NOW: Timestamp = Timestamp::from_secs(1_000);
const HOSTS: u32 = 5_000_000;
const ROUNDS: u32 = 20;
/// Tells the child where to write, and how.
const DIRECTORY: &str = "ANSWERBACK_TEST_DIRECTORY";
const SYNCHRONISED: &str = "ANSWERBACK_TEST_SYNCHRONISED";

async fn open(directory: &Path, fsync: Fsync) -> Arc<EmbeddedStore> {
    let settings = Settings {
        dir: directory.to_owned(),
        rules: Rules::default(),
        log_bytes_max: 1 << 20,
        accept_loss: false,
        logs_bytes_max: 1 << 30,
        fsync,
        encode,
    };
    EmbeddedStore::open(settings, NOW).await.unwrap()
}

fn answer(host: u32) -> Answer {
    let pad = "p".repeat(host as usize * 37 % 3_000);
    Answer {
        host: HostId(host),
        failed: false,
        body: Bytes::from(format!(r#""host":{{"id":{host}}},"pad":"{pad}""#)),
    }
}

/// One line a promise: the pipe has it, whole, before anything else happens.
fn told(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\ntold {line}\n").as_bytes())
        .unwrap();
    out.flush().unwrap();
}

/// The open campaign and how far it is; a new one if there is none.
async fn campaign(store: &EmbeddedStore) -> (CampaignId, u32) {
    if let Some(id) = store.active().ids().first().copied() {
        let progress = store.progress(id).await.unwrap().unwrap();
        return (id, progress.answered.max().unwrap_or(0));
    }
    let mut targets = RoaringBitmap::new();
    targets.insert_range(1..HOSTS);
    let question = Question {
        query_id: QueryId(1),
        query_name: None,
        user_id: UserId(1),
        sql: "SELECT 1".into(),
        targets: Arc::new(targets),
        teams: Vec::new(),
    };
    let id = store.create(question, NOW).await.unwrap().id;
    told(&format!("campaign {id}"));
    (id, 0)
}

async fn append(store: Arc<EmbeddedStore>, id: CampaignId, first: u32) {
    for host in (first..HOSTS).step_by(3) {
        match store.append(id, answer(host), NOW).await.unwrap() {
            Appended::At(seq) => told(&format!("answer {id} {seq} {host}")),
            // A part of the last run's answers had overtaken others.
            Appended::Duplicate => {}
            Appended::Closed => return,
            refused => panic!("{refused:?}"),
        }
        // An append seldom waits for anything, and others want to write too.
        tokio::task::yield_now().await;
    }
}

async fn commit(store: Arc<EmbeddedStore>) {
    loop {
        let number = store.reserve("host", 2).await.unwrap();
        told(&format!("number {number}"));
        let change = |key: String| Change {
            kind: "host",
            key,
            expect: Expect::Absent,
            value: Some(Bytes::from(number.to_string())),
        };
        let pair = vec![change(format!("{number}a")), change(format!("{number}b"))];
        match store.commit(pair).await.unwrap() {
            Committed::Done(revision) => told(&format!("commit {number} {revision}")),
            conflict => panic!("{conflict:?}"),
        }
    }
}

#[test]
#[ignore = "the child of the test below"]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let fsync = match std::env::var_os(SYNCHRONISED) {
        Some(_) => Fsync::Always,
        None => Fsync::Never,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(directory.as_ref(), fsync).await;
        let (id, answered) = campaign(&store).await;
        let mut tasks = JoinSet::new();
        for offset in 1..=3 {
            tasks.spawn(append(Arc::clone(&store), id, answered + offset));
        }
        tasks.spawn(commit(Arc::clone(&store)));
        // A campaign of several runs, then the next.
        tokio::time::sleep(Duration::from_millis(60)).await;
        if answered > 2_000 {
            assert!(store.end(id, Ending::Stopped, NOW).await.unwrap());
            told(&format!("end {id}"));
        }
        tasks.join_all().await;
    });
}

/// What the child has promised so far.
#[derive(Default)]
struct Promises {
    answers: BTreeMap<CampaignId, BTreeMap<Seq, HostId>>,
    ended: BTreeSet<CampaignId>,
    commits: BTreeMap<u64, u64>,
    numbers: BTreeSet<u64>,
}

impl Promises {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[..] {
            ["told", "campaign", _] => {
                self.answers.insert(CampaignId(number(2)), BTreeMap::new());
            }
            ["told", "answer", ..] => {
                let host = HostId(u32::try_from(number(4)).unwrap());
                let answers = self.answers.get_mut(&CampaignId(number(2))).unwrap();
                assert!(
                    answers.insert(Seq(number(3)), host).is_none(),
                    "a place given twice"
                );
            }
            ["told", "commit", ..] => assert!(self.commits.insert(number(2), number(3)).is_none()),
            ["told", "number", _] => {
                assert!(self.numbers.insert(number(2)), "a number given twice");
            }
            ["told", "end", _] => assert!(self.ended.insert(CampaignId(number(2)))),
            _ => {}
        }
    }

    /// Checks all of it against the store.
    async fn check(&self, store: &EmbeddedStore) {
        let (records, revision) = load_all(store).await.unwrap();
        let found: BTreeMap<&str, u64> = records
            .iter()
            .map(|record| (record.key.as_str(), record.revision))
            .collect();
        for (number, at) in &self.commits {
            for half in ["a", "b"] {
                assert_eq!(found.get(format!("{number}{half}").as_str()), Some(at));
            }
            assert!(*at <= revision);
        }
        assert!(found.len().is_multiple_of(2), "half a commit");
        let highest = self.numbers.last().copied().unwrap_or(0);
        assert!(store.reserve("host", 2).await.unwrap() > highest);
        for (id, answers) in &self.answers {
            let kept = read_all(store, *id).await;
            let missing = answers
                .iter()
                .find(|(seq, host)| kept.get(seq) != Some(host));
            assert_eq!(missing, None, "of campaign {id}");
            let places: Vec<u64> = kept.keys().map(|seq| seq.0).collect();
            assert_eq!(places, (1..=places.len() as u64).collect::<Vec<_>>());
            let hosts: BTreeSet<_> = kept.values().collect();
            assert_eq!(hosts.len(), kept.len(), "a host answered twice");
            let ended = store.campaign(*id).await.unwrap().unwrap().ended;
            assert!(ended.is_some() || !self.ended.contains(id), "{id} goes on");
        }
    }
}

async fn read_all(store: &EmbeddedStore, id: CampaignId) -> BTreeMap<Seq, HostId> {
    let (mut all, mut after) = (BTreeMap::new(), Seq(0));
    loop {
        let page = store.read(id, after, 1 << 20).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = last.seq;
        for record in page {
            assert_eq!(record.answer, answer(record.answer.host.0));
            all.insert(record.seq, record.answer.host);
        }
    }
}

/// This binary again, as the child test of this name.
fn child(name: &str, directory: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let (_, module) = module_path!().split_once("::").unwrap();
    child.args([
        "--ignored",
        "--nocapture",
        "--exact",
        &format!("{module}::{name}"),
    ]);
    child
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    child
}

/// Reads what the child says until it is killed, so long after its first promise.
fn kill_after(mut child: Child, alive: Duration) -> Vec<String> {
    let out = BufReader::new(child.stdout.take().unwrap());
    let (begun, has_begun) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for line in out.lines().map_while(Result::ok) {
            if line.starts_with("told") {
                let _ = begun.send(Instant::now());
            }
            lines.push(line);
        }
        lines
    });
    has_begun
        .recv_timeout(Duration::from_secs(20))
        .expect("the child writes");
    std::thread::sleep(alive);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let directory = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut promises = Promises::default();
    for round in 0..ROUNDS {
        let mut child = child("writes_until_it_is_killed", directory.path());
        if round % 4 == 3 {
            child.env(SYNCHRONISED, "1");
        }
        let mut random = [0];
        getrandom::fill(&mut random).unwrap();
        let alive = Duration::from_micros(500 * u64::from(random[0]));
        for line in kill_after(child.spawn().unwrap(), alive) {
            promises.note(&line);
        }
        runtime.block_on(async {
            let store = open(directory.path(), Fsync::Never).await;
            promises.check(&store).await;
            store.close().await;
        });
    }
    let answers: usize = promises.answers.values().map(BTreeMap::len).sum();
    assert!(
        answers > 1_000 && promises.commits.len() > 100,
        "too little was tried"
    );
    assert!(promises.answers.len() > 1, "no campaign has ended");
}

#[test]
#[ignore = "the child of the test below"]
fn writes_until_the_disk_is_full() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(directory.as_ref(), Fsync::Never).await;
        let (id, answered) = campaign(&store).await;
        let mut refused = 0;
        for host in answered + 1.. {
            match store.append(id, answer(host), NOW).await {
                Ok(Appended::At(seq)) => told(&format!("answer {id} {seq} {host}")),
                Err(StoreError::Full(_)) => refused += 1,
                other => panic!("{other:?}"),
            }
            // The lengths differ, so that short answers still fit when long ones do not.
            if refused == 200 {
                break;
            }
        }
        told("full");
    });
}

#[test]
fn a_full_disk_costs_nothing_that_was_acknowledged() {
    let directory = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut promises = Promises::default();
    for _ in 0..2 {
        // A limit of the file's size stands in for the disk: the last write is cut short, as on a full one.
        let direct = child("writes_until_the_disk_is_full", directory.path());
        let mut limited = Command::new("sh");
        limited.args(["-c", r#"trap '' XFSZ; ulimit -f 1200; exec "$@""#, "sh"]);
        limited.arg(direct.get_program()).args(direct.get_args());
        limited.env(DIRECTORY, directory.path());
        let output = limited.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("told full"), "{said}");
        said.lines().for_each(|line| promises.note(line));
        runtime.block_on(async {
            let store = open(directory.path(), Fsync::Never).await;
            promises.check(&store).await;
            let (id, answered) = campaign(&store).await;
            let kept = read_all(&store, id).await.len() as u64;
            let appended = store.append(id, answer(answered + 1), NOW).await.unwrap();
            assert_eq!(appended, Appended::At(Seq(kept + 1)));
            store.close().await;
        });
    }
    let answers: usize = promises.answers.values().map(BTreeMap::len).sum();
    assert!(answers > 200, "{answers}");
}
