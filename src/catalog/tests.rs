//! Tests of the typed view: indexes follow every change.

use super::entity::{Host, HostDetails, Label, Membership};
use super::*;
use crate::clock::Timestamp;
use crate::results::{HostId, LabelId, Rules, TeamId};
use crate::store::contract;
use crate::store::embedded::{self, EmbeddedStore};
use futures_util::poll;
use std::pin::pin;
use std::time::Duration;

fn host(id: u32, name: &str) -> Host {
    Host {
        id: HostId(id),
        identifier: format!("ident-{id}"),
        node_key_hash: format!("{id:064x}"),
        team: None,
        twin: 0,
        home: None,
        enrolled_at: 1_000,
        detailed_at: 0,
        labelled_at: 0,
        distributed_interval: 10,
        config_tls_refresh: 0,
        details: HostDetails {
            hostname: name.into(),
            ..HostDetails::default()
        },
        labels: vec![],
    }
}

fn key(id: u8) -> [u8; 32] {
    let mut key = [0; 32];
    key[31] = id;
    key
}

#[test]
fn a_host_is_found_by_all_its_names_and_by_none_of_its_old_ones() {
    let mut state = State::default();
    state.put(Entity::Host(Box::new(host(1, "Web-1"))), 1);
    state.put(Entity::Host(Box::new(host(2, "web-1"))), 2);
    assert_eq!(
        state.hosts.named("WEB-1").as_slice(),
        [HostId(1), HostId(2)]
    );
    assert_eq!(state.hosts.named("ident-2").as_slice(), [HostId(2)]);
    let mut moved = host(1, "db-1");
    moved.team = Some(TeamId(3));
    moved.labels = vec![LabelId(9)];
    moved.node_key_hash = format!("{:064x}", 77);
    state.put(Entity::Host(Box::new(moved)), 3);
    assert_eq!(state.hosts.named("web-1").as_slice(), [HostId(2)]);
    assert_eq!(state.hosts.named("db-1").as_slice(), [HostId(1)]);
    assert!(state.hosts.by_node_key(&key(1)).is_none());
    assert_eq!(
        state.hosts.by_node_key(&key(77)).map(|host| host.id),
        Some(HostId(1))
    );
    assert_eq!(
        state
            .hosts
            .of_team(TeamId(0))
            .map(roaring::RoaringBitmap::len),
        Some(1)
    );
    assert!(
        state
            .hosts
            .of_label(LabelId(9))
            .is_some_and(|hosts| hosts.contains(1))
    );
    state.delete(record::kind::HOST, "1");
    assert!(
        state.hosts.named("db-1").is_empty()
            && state.hosts.by_identifier("ident-1").next().is_none()
    );
    assert!(
        state
            .hosts
            .of_label(LabelId(9))
            .is_some_and(roaring::RoaringBitmap::is_empty)
    );
    assert_eq!(state.hosts.all().len(), 1);
}

#[test]
fn a_manual_label_names_hosts_that_may_come_later() {
    let mut state = State::default();
    let label = Label {
        id: LabelId(4),
        name: "mine".into(),
        description: String::new(),
        query: String::new(),
        platform: String::new(),
        builtin: false,
        membership: Membership::Manual,
        hosts: vec!["web-1".into()],
    };
    assert!(state.members(&label).is_empty());
    state.put(Entity::Host(Box::new(host(1, "web-1"))), 1);
    assert!(state.members(&label).contains(1));
}

#[test]
fn a_host_is_online_for_its_interval_and_a_minute() {
    let presence = Presence::default();
    presence.watch(&Entity::Host(Box::new(host(1, "a"))));
    presence.watch(&Entity::Host(Box::new(host(2, "b"))));
    let start = Timestamp::from_secs(1_000_000);
    presence.touch(HostId(1), start);
    let set = roaring::RoaringBitmap::from_iter([1u32, 2]);
    let counts = presence.count(&set, start + Duration::from_secs(69));
    assert_eq!((counts.total, counts.online, counts.offline), (2, 1, 1));
    assert!(!presence.is_online(HostId(1), start + Duration::from_secs(70)));
    assert_eq!(presence.take_dirty(), [(HostId(1), start)]);
    assert!(presence.take_dirty().is_empty());
}

#[test]
fn entities_survive_the_store() {
    let entity = Entity::Host(Box::new(host(5, "näme \u{2028} \"quoted\"")));
    let stored = Stored {
        kind: entity.kind().into(),
        key: entity.key(),
        revision: 3,
        value: Some(entity.value()),
    };
    let mut state = State::default();
    let presence = Presence::default();
    apply(&mut state, &presence, &stored).unwrap();
    assert_eq!(
        **state.hosts.get(HostId(5)).unwrap(),
        host(5, "näme \u{2028} \"quoted\"")
    );
    let later = Stored {
        kind: "from a later version".into(),
        ..stored
    };
    apply(&mut state, &presence, &later).unwrap();
}

/// Two nodes' views of one store, which nobody tells of the other's commits.
async fn two_views() -> (Catalog, Catalog, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let settings = embedded::Settings {
        dir: directory.path().to_owned(),
        rules: Rules::default(),
        log_bytes_max: 1 << 20,
        accept_loss: false,
        logs_bytes_max: 1 << 20,
        fsync: embedded::Fsync::Never,
        encode: contract::encode,
    };
    let opened = EmbeddedStore::open(settings, contract::START).await;
    let store: Arc<dyn Store> = opened.unwrap();
    let (one, other) = (Catalog::load(Arc::clone(&store)), Catalog::load(store));
    (one.await.unwrap(), other.await.unwrap(), directory)
}

fn overwrite(name: &str) -> Vec<Edit> {
    vec![Edit::Overwrite(Entity::Host(Box::new(host(1, name))))]
}

async fn commit(catalog: &Catalog, name: &str) {
    let done: Result<(), CommitError<()>> = catalog.commit(|_| Ok((overwrite(name), ()))).await;
    done.unwrap();
}

fn named(catalog: &Catalog, name: &str) -> usize {
    catalog.read().hosts.named(name).len()
}

#[tokio::test]
async fn an_own_commit_behind_others_is_seen_at_once_and_the_others_in_order() {
    let (one, other, _directory) = two_views().await;
    commit(&other, "theirs").await;
    commit(&one, "ours").await;
    assert_eq!((named(&one, "ours"), named(&one, "theirs")), (1, 0));
    assert_eq!(one.read().applied.upto(), 0);
    one.catch_up().await.unwrap();
    assert_eq!((named(&one, "ours"), named(&one, "theirs")), (1, 0));
    assert_eq!(one.read().applied.upto(), 2);
}

#[tokio::test]
async fn what_is_known_to_be_older_changes_nothing() {
    let (one, other, _directory) = two_views().await;
    assert!(one.apply_own(overwrite("second"), 2));
    assert!(one.apply_own(overwrite("first"), 1));
    assert_eq!((named(&one, "first"), named(&one, "second")), (0, 1));
    assert_eq!(one.read().applied.upto(), 2);
    assert!(one.apply_own(overwrite("first"), 1));
    assert_eq!(named(&one, "first"), 0);
    // A deletion does not tell what it is about: the store has to.
    commit(&other, "theirs").await;
    assert!(other.apply_own(overwrite("third"), 3));
    let delete = vec![Edit::Delete(record::kind::HOST, "1".to_owned())];
    assert!(!other.apply_own(delete, 2));
    assert_eq!(named(&other, "third"), 1);
}

#[tokio::test]
async fn a_commit_whose_maker_is_gone_is_told_by_the_store() {
    let (one, _other, _directory) = two_views().await;
    let mut made = 0;
    let name = loop {
        made += 1;
        let name = format!("late {made}");
        let commit = one.commit(|_| Ok::<_, ()>((overwrite(&name), ())));
        // Now and then the store is so quick that its maker still hears of it.
        if poll!(pin!(commit)).is_pending() {
            break name;
        }
    };
    let told = async {
        while named(&one, &name) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = one.follow() => {}
        () = told => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("nobody told"),
    }
    assert_eq!(one.read().applied.upto(), made);
}

#[test]
fn an_identifier_that_another_host_has_by_now_stays_its_own() {
    let mut state = State::default();
    state.put(Entity::Host(Box::new(host(5, "a"))), 1);
    let mut again = host(9, "b");
    again.identifier = "ident-5".into();
    state.put(Entity::Host(Box::new(again)), 3);
    state.delete(record::kind::HOST, "5");
    assert_eq!(state.hosts.named("ident-5").as_slice(), [HostId(9)]);
}
