//! Tests of the numbers of labels: as Fleet's from the start, and moved there in catalogs of before.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::record::kind;
use super::*;
use crate::store::Change;
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::{Expect, Store, contract};

const OF_FLEET: [(u32, &str); 8] = [
    (6, "All Hosts"),
    (7, "macOS"),
    (8, "Ubuntu Linux"),
    (9, "CentOS Linux"),
    (10, "MS Windows"),
    (11, "Red Hat Linux"),
    (12, "All Linux"),
    (13, "chrome"),
];

async fn store(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    let settings = embedded::Settings {
        dir: directory.path().to_owned(),
        rules: crate::results::Rules::default(),
        log_bytes_max: 1 << 20,
        accept_loss: false,
        logs_bytes_max: 1 << 20,
        fsync: embedded::Fsync::Never,
        encode: contract::encode,
    };
    EmbeddedStore::open(settings, contract::START)
        .await
        .unwrap()
}

fn numbered(catalog: &Catalog) -> Vec<(u32, String)> {
    let state = catalog.read();
    let labels = state.labels.values();
    labels
        .map(|(label, _)| (label.id.0, label.name.clone()))
        .collect()
}

fn named(labels: &[(u32, &str)]) -> Vec<(u32, String)> {
    let labels = labels.iter();
    labels.map(|(id, name)| (*id, (*name).to_owned())).collect()
}

#[tokio::test]
async fn a_new_catalog_has_the_numbers_of_fleet_however_many_nodes_begin_together() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let one = Catalog::load(Arc::clone(&store)).await.unwrap();
    let other = Catalog::load(Arc::clone(&store)).await.unwrap();
    let (made, too) = tokio::join!(
        furnish(&one, contract::START),
        furnish(&other, contract::START)
    );
    made.unwrap();
    too.unwrap();
    one.catch_up().await.unwrap();
    assert_eq!(numbered(&one), named(&OF_FLEET));
    assert!(one.reserve(kind::LABEL, 1).await.unwrap() >= 14);
}

/// A catalog as it was written before, with two labels of its own.
async fn before(store: &Arc<dyn Store>) {
    let mut names = OF_FLEET.map(|(_, name)| name).to_vec();
    names.extend(["mine", "deleted soon", "yours"]);
    let put = |kind, key: String, value: Value| Change {
        kind,
        key,
        expect: Expect::Absent,
        value: Some(value.to_string().into()),
    };
    let mut changes = Vec::new();
    for (id, name) in (1..).zip(&names) {
        let label = json!({"id": id, "name": name, "description": "", "query": "select 1", "platform": "",
            "builtin": id <= 8, "membership": "dynamic", "hosts": []});
        changes.push(put(kind::LABEL, id.to_string(), label));
        changes.push(put(kind::NAME, format!("label/{name}"), json!(id)));
    }
    changes.retain(|change| change.key != "10" && change.key != "label/deleted soon");
    let host = json!({"id": 1, "identifier": "i", "node_key_hash": format!("{:064x}", 1), "team": null,
        "enrolled_at": 1, "labels": [3, 7, 9, 11], "details": {"hostname": "\"label_ids\":"}});
    changes.push(put(kind::HOST, "1".to_owned(), host));
    let first = store.reserve(kind::LABEL, 11).await.unwrap();
    assert_eq!(first, 1);
    store.commit(changes).await.unwrap();
}

#[tokio::test]
async fn a_catalog_of_before_is_moved_once_with_all_that_refers_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    before(&store).await;
    let mut expected = named(&OF_FLEET);
    expected.extend(named(&[(14, "mine"), (16, "yours")]));
    let one = Catalog::load(Arc::clone(&store)).await.unwrap();
    let other = Catalog::load(Arc::clone(&store)).await.unwrap();
    let (moved, too) = tokio::join!(
        furnish(&one, contract::START),
        furnish(&other, contract::START)
    );
    moved.unwrap();
    too.unwrap();
    furnish(&one, contract::START).await.unwrap();
    let reread = Catalog::load(Arc::clone(&store)).await.unwrap();
    for catalog in [&one, &other, &reread] {
        catalog.catch_up().await.unwrap();
        assert_eq!(numbered(catalog), expected);
        let state = catalog.read();
        let host = state.hosts.by_identifier("i").next().unwrap();
        assert_eq!(host.labels, [8, 12, 14, 16].map(LabelId));
        for (id, name) in [(8, "Ubuntu Linux"), (16, "yours")] {
            let label = state.label(name).unwrap();
            assert_eq!(state.named(&name_of(kind::LABEL, name)), Some(id));
            assert!(state.members(label).contains(1), "{name}");
        }
        assert!(
            state
                .hosts
                .of_label(LabelId(9))
                .is_none_or(roaring::RoaringBitmap::is_empty)
        );
    }
    assert!(one.reserve(kind::LABEL, 1).await.unwrap() >= 17);
    // Written anew, it is not moved again.
    let put = |state: &State| {
        let host = state.hosts.by_identifier("i").next().unwrap();
        let host = Entity::Host(Box::new(crate::catalog::entity::Host::clone(host)));
        Ok::<_, ()>((vec![Edit::Put(host)], ()))
    };
    one.commit(put).await.unwrap();
    let reread = Catalog::load(store).await.unwrap();
    let state = reread.read();
    assert_eq!(
        state.hosts.by_identifier("i").next().unwrap().labels,
        [8, 12, 14, 16].map(LabelId)
    );
}
