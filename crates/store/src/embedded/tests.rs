//! Tests of the embedded store: the contract, and what only a directory of files can do wrong.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::contract::{self, Fixture, START};
use crate::results::{Claim, HandOut, HostId, Rules, Seq};
use crate::{Appended, Store, load_all};

/// Stores in directories that live as long as the fixture.
struct Directories {
    root: TempDir,
    fsync: Fsync,
    /// So small that followers meet evicted blocks.
    log_bytes_max: usize,
}

impl Directories {
    fn new(fsync: Fsync, log_bytes_max: usize) -> Self {
        let root = TempDir::new().unwrap();
        Self {
            root,
            fsync,
            log_bytes_max,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            dir: self.root.path().join("data"),
            rules: Rules::default(),
            log_bytes_max: self.log_bytes_max,
            accept_loss: false,
            logs_bytes_max: 1 << 30,
            fsync: self.fsync,
            encode: contract::encode,
        }
    }

    async fn open(&self, now: Timestamp) -> Arc<EmbeddedStore> {
        EmbeddedStore::open(self.settings(), now).await.unwrap()
    }
}

#[async_trait]
impl Fixture for Directories {
    async fn fresh(&self) -> Arc<dyn Store> {
        self.open(START).await
    }

    async fn reopen(&self, store: Arc<dyn Store>, now: Timestamp) -> Arc<dyn Store> {
        store.close().await;
        drop(store);
        self.open(now).await
    }

    async fn second_node(&self, _: &Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        None
    }
}

mod as_it_comes {
    use super::*;
    crate::store_contract!(Directories::new(Fsync::Never, 64 << 20));
}

mod synchronised_and_with_little_memory {
    use super::*;
    crate::store_contract!(Directories::new(Fsync::Always, 100_000));
}

/// A question for these hosts.
async fn created(store: &EmbeddedStore, hosts: u32) -> Campaign {
    try_create(store, hosts).await.unwrap()
}

async fn try_create(store: &EmbeddedStore, hosts: u32) -> Result<Campaign, StoreError> {
    let question = crate::results::Question {
        query_id: crate::results::QueryId(1),
        query_name: None,
        user_id: crate::results::UserId(1),
        sql: "SELECT 1".into(),
        targets: Arc::new((1..=hosts).collect()),
        teams: Vec::new(),
    };
    store.create(question, START).await
}

async fn append(
    store: &EmbeddedStore,
    campaign: &Campaign,
    host: u32,
) -> Result<Appended, StoreError> {
    store
        .append(campaign.id, contract::answer(host), START)
        .await
}

fn later(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_directory_is_one_stores_alone_until_it_is_closed() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    let second = EmbeddedStore::open(directories.settings(), START).await;
    let Err(StoreError::Unavailable(told)) = second else {
        panic!("opened twice");
    };
    assert!(told.contains("another process"), "{told}");
    let campaign = created(&store, 3).await;
    store.close().await;
    let after = append(&store, &campaign, 1).await;
    assert!(matches!(after, Err(StoreError::Unavailable(_))));
    assert!(load_all(&*store).await.is_err() && store.reserve("host", 1).await.is_err());
    directories.open(START).await;
}

#[tokio::test]
async fn what_is_made_is_the_owners_alone() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    let campaign = created(&store, 3).await;
    append(&store, &campaign, 1).await.unwrap();
    let dir = directories.settings().dir;
    for path in [
        "",
        CAMPAIGNS,
        CATALOG,
        LOCK,
        "catalog.db-wal",
        "campaigns/1.log",
    ] {
        let mode = fs::metadata(dir.join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path}");
    }
}

#[tokio::test]
async fn what_is_acknowledged_needs_no_close() {
    for fsync in [Fsync::Never, Fsync::Always] {
        let directories = Directories::new(fsync, 1 << 20);
        let store = directories.open(START).await;
        let campaign = created(&store, 50).await;
        for host in 1..=40 {
            append(&store, &campaign, host).await.unwrap();
        }
        let number = store.reserve("host", 5).await.unwrap();
        drop(store);
        let store = directories.open(START).await;
        assert_eq!(store.reserve("host", 1).await.unwrap(), number + 5);
        assert_eq!(
            append(&store, &campaign, 40).await.unwrap(),
            Appended::Duplicate
        );
        assert_eq!(
            append(&store, &campaign, 41).await.unwrap(),
            Appended::At(Seq(41))
        );
    }
}

#[tokio::test]
async fn forgetting_removes_the_file_and_keeps_the_outcome() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    let campaign = created(&store, 9).await;
    for host in 1..=6 {
        append(&store, &campaign, host).await.unwrap();
    }
    let path = directories.settings().dir.join("campaigns/1.log");
    assert!(path.exists());
    store.reap(later(60)).await.unwrap();
    assert!(path.exists());
    assert_eq!(
        store.reap(later(3_660)).await.unwrap(),
        [Reaped::Forgotten(campaign.id)]
    );
    assert!(!path.exists());
    let listed = store.campaigns(10).await.unwrap();
    assert!(listed[0].is_cancelled());
    let progress = store.progress(campaign.id).await.unwrap().unwrap();
    assert_eq!((progress.answered.len(), progress.failed.len()), (6, 2));
    let claim = store
        .claim(campaign.id, "node", later(3_661))
        .await
        .unwrap();
    assert_eq!(claim, Claim::Ended(Ending::Unclaimed));
}

#[tokio::test]
async fn old_campaigns_leave_the_list_after_a_week() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    created(&store, 1).await;
    store.reap(later(60)).await.unwrap();
    store.reap(later(4_000)).await.unwrap();
    let week = later(7 * 24 * 3_600);
    let question = store.campaigns(1).await.unwrap().remove(0).question;
    let second = store.create(question, week).await.unwrap();
    store.end(second.id, Ending::Stopped, week).await.unwrap();
    assert_eq!(store.campaigns(10).await.unwrap().len(), 2);
    store.reap(week + Duration::from_secs(4_000)).await.unwrap();
    let listed = store.campaigns(10).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|campaign| campaign.id).collect();
    assert_eq!(ids, [second.id]);
}

#[tokio::test]
async fn files_that_belong_to_no_campaign_are_removed_at_start() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    directories.open(START).await.close().await;
    let files = directories.settings().dir.join(CAMPAIGNS);
    fs::write(files.join("77.log"), "left over").unwrap();
    fs::write(files.join("notes.txt"), "somebody's").unwrap();
    directories.open(START).await;
    assert!(!files.join("77.log").exists() && files.join("notes.txt").exists());
}

#[tokio::test]
async fn a_full_disk_is_told_and_answers_go_on_when_there_is_room() {
    for fsync in [Fsync::Never, Fsync::Always] {
        let directories = Directories::new(fsync, 1 << 20);
        let store = directories.open(START).await;
        let campaign = created(&store, 9).await;
        let path = directories.settings().dir.join("campaigns/1.log");
        fs::remove_file(&path).unwrap();
        symlink("/dev/full", &path).unwrap();
        let file = file::LogFile::new(campaign.id, path.clone());
        store.campaigns.add(campaign.clone(), file);
        let refused = append(&store, &campaign, 1).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        let given = store.hand_out(campaign.id, HostId(2), START).await.unwrap();
        assert_eq!(given, HandOut::Give);
        store.reap(START).await.unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(
            append(&store, &campaign, 1).await.unwrap(),
            Appended::At(Seq(1))
        );
        assert_eq!(store.read(campaign.id, Seq(0), 1).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_campaign_that_cannot_have_its_file_fails_when_it_is_made() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    let path = directories.settings().dir.join("campaigns/1.log");
    symlink("/dev/full", &path).unwrap();
    let refused = try_create(&store, 9).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert!(store.active().is_empty());
    fs::remove_file(&path).unwrap();
    let campaign = created(&store, 9).await;
    assert_eq!(campaign.id, CampaignId(1), "no number is used up");
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.len(), file.permissions().mode() & 0o777), (16, 0o600));
}

#[tokio::test]
async fn an_answer_whose_campaign_ends_while_it_is_written_is_in_no_log() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    let campaign = created(&store, 9).await;
    append(&store, &campaign, 1).await.unwrap();
    let live = store.campaigns.find(campaign.id).unwrap();
    let mut begun = live.begin(state::Answers::from_buf([contract::answer(2)]));
    begun.write(false).unwrap();
    let ended = store.end(campaign.id, Ending::Stopped, later(1)).await;
    assert!(ended.unwrap());
    let taken = live.finish(begun, Ok(()));
    assert!(matches!(taken.replies[..], [Ok(Appended::Closed)]));
    assert_eq!(store.read(campaign.id, Seq(0), 100).await.unwrap().len(), 1);
    store.close().await;
    drop(store);
    let store = directories.open(later(2)).await;
    assert_eq!(store.read(campaign.id, Seq(0), 100).await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_host_that_answers_twice_in_a_write_that_fails_has_not_answered() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    let campaign = created(&store, 9).await;
    let live = store.campaigns.find(campaign.id).unwrap();
    let twice = || state::Answers::from_iter([contract::answer(2), contract::answer(2)]);
    let failure = state::Failure {
        error: StoreError::Full("no room".into()),
        is_final: false,
    };
    let failed = live.finish(live.begin(twice()), Err(failure));
    assert!(failed.replies.iter().all(Result::is_err), "{failed:?}");
    let taken = live.write(twice(), false);
    assert!(matches!(
        taken.replies[..],
        [Ok(Appended::At(Seq(1))), Ok(Appended::Duplicate)]
    ));
}

#[tokio::test]
async fn an_ending_that_cannot_be_written_counts_at_once_and_is_written_later() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    let campaign = created(&store, 9).await;
    let path = directories.settings().dir.join(CATALOG);
    let other = rusqlite::Connection::open(path).unwrap();
    other
        .execute_batch("ALTER TABLE campaigns RENAME TO away")
        .unwrap();
    let ended = store.end(campaign.id, Ending::Stopped, later(1)).await;
    assert!(ended.is_err(), "it is not durable");
    assert_eq!(
        append(&store, &campaign, 1).await.unwrap(),
        Appended::Closed
    );
    assert!(store.active().is_empty());
    store.reap(later(2)).await.unwrap();
    other
        .execute_batch("ALTER TABLE away RENAME TO campaigns")
        .unwrap();
    store.reap(later(3)).await.unwrap();
    drop(store);
    let store = directories.open(later(4)).await;
    let found = store.campaign(campaign.id).await.unwrap().unwrap();
    assert_eq!(found.ended, Some((later(1), Ending::Stopped)));
}

#[tokio::test]
async fn logs_together_stay_within_their_bound() {
    let directories = Directories::new(Fsync::Never, 8 << 20);
    let mut settings = directories.settings();
    settings.logs_bytes_max = 400_000;
    let store = EmbeddedStore::open(settings, START).await.unwrap();
    let mut logs = Vec::new();
    for _ in 0..2 {
        let campaign = created(&store, 2_000).await;
        for host in 1..=2_000 {
            append(&store, &campaign, host).await.unwrap();
        }
        logs.push(store.follow(campaign.id).await.unwrap().unwrap());
    }
    let bytes = || logs.iter().map(|log| log.bytes()).sum::<usize>();
    assert!(bytes() > 1_000_000);
    store.reap(START).await.unwrap();
    // The tail and the block read last are always kept.
    assert!(bytes() <= 400_000 + 2 * 64 * 1024, "{}", bytes());
}

#[tokio::test]
async fn a_catalog_that_is_none_is_told() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let settings = directories.settings();
    fs::create_dir_all(&settings.dir).unwrap();
    fs::write(settings.dir.join(CATALOG), vec![b'?'; 8_192]).unwrap();
    let refused = EmbeddedStore::open(settings, START).await;
    assert!(matches!(refused, Err(StoreError::Damaged(_))));
}

#[tokio::test]
async fn a_directory_of_a_later_version_is_told_as_such() {
    let directories = Directories::new(Fsync::Never, 1 << 20);
    let store = directories.open(START).await;
    store.close().await;
    drop(store);
    let path = directories.settings().dir.join(CATALOG);
    let db = rusqlite::Connection::open(path).unwrap();
    db.pragma_update(None, "user_version", 77).unwrap();
    drop(db);
    let refused = EmbeddedStore::open(directories.settings(), START).await;
    assert!(matches!(refused, Err(StoreError::Damaged(told)) if told.contains("newer answerback")));
}
