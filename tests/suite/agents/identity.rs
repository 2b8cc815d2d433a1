//! Who an agent is taken for that shows a good secret and somebody's identifier.

use answerback::agents::Settings;
use answerback::catalog::Edit;
use answerback::catalog::entity::{Entity, Host, Team};
use answerback::limits;
use answerback::results::{HostId, TeamId};
use serde_json::{Value, json};

use super::bed::{Bed, SECRET};

const A: TeamId = TeamId(3);
const B: TeamId = TeamId(4);

async fn two_teams(agents: Settings) -> Bed {
    let bed = Bed::with(agents).await;
    for (id, name) in [(A, "a"), (B, "b")] {
        let team = Team {
            id,
            name: name.to_owned(),
            description: String::new(),
            agent_options: None,
            created_at: 0,
        };
        bed.put([Entity::Team(team)]).await;
        bed.add_secret(name, Some(id)).await;
    }
    bed
}

/// The reply to an enrolment; `hardware` is a UUID and a serial number.
async fn enroll(
    bed: &Bed,
    name: &str,
    secret: &str,
    hardware: Option<(&str, &str)>,
) -> (u16, Value) {
    let mut body = json!({ "enroll_secret": secret, "host_identifier": name });
    if let Some((uuid, serial)) = hardware {
        let info = json!({ "uuid": uuid, "hardware_serial": serial, "hostname": name });
        body["host_details"] = json!({ "system_info": info });
    }
    bed.post("enroll", &body).await
}

async fn key(bed: &Bed, name: &str, secret: &str, hardware: Option<(&str, &str)>) -> String {
    let (status, said) = enroll(bed, name, secret, hardware).await;
    assert_eq!(status, 200, "{said}");
    said["node_key"].as_str().unwrap().to_owned()
}

fn host(bed: &Bed, key: &str) -> Option<Host> {
    let hash = answerback::auth::agent::hash(key).unwrap();
    let state = bed.catalog.read();
    state.hosts.by_node_key(&hash).map(|host| (**host).clone())
}

fn acts(bed: &Bed, kind: &str) -> Vec<Value> {
    let state = bed.catalog.read();
    let acts = state.activities.values().filter(|act| act.kind == kind);
    acts.map(|act| act.details.clone()).collect()
}

async fn transfer(bed: &Bed, id: HostId, team: TeamId) {
    let plan = |state: &answerback::catalog::State| {
        let mut host = Host::clone(state.hosts.get(id).unwrap());
        host.team = Some(team);
        Ok::<_, ()>((vec![Edit::Put(Entity::Host(Box::new(host)))], ()))
    };
    bed.catalog.commit(plan).await.unwrap();
}

#[tokio::test]
async fn another_teams_secret_takes_over_nothing() {
    let bed = two_teams(Settings::default()).await;
    let hardware = Some(("4C4C4544", "S1"));
    let owner = key(&bed, "web-1", "a", hardware).await;
    let known = host(&bed, &owner).unwrap();
    let campaign = bed.campaign("select 1", &[known.id]).await;
    // With and without the true hardware, with a team's secret and with the global one.
    for (secret, hardware) in [
        ("b", hardware),
        ("b", None),
        (SECRET, hardware),
        (SECRET, None),
    ] {
        let thief = key(&bed, "web-1", secret, hardware).await;
        let other = host(&bed, &thief).unwrap();
        assert_ne!(other.id, known.id, "{secret}");
        assert_ne!(other.team, Some(A));
        let (_, said) = bed
            .post("distributed/read", &json!({ "node_key": thief }))
            .await;
        let live = format!("fleet_distributed_query_{campaign}");
        assert_eq!(said["queries"].get(&live), None, "{said}");
    }
    let still = host(&bed, &owner).expect("the owner's key lives");
    assert_eq!((still.id, still.team), (known.id, Some(A)));
    let noticed = acts(&bed, "enrolled_host_of_known_identifier");
    assert_eq!(
        noticed.len(),
        2,
        "two hosts were new, then known: {noticed:?}"
    );
    assert_eq!(noticed[0]["known_host_id"], known.id.0);
    assert!(
        noticed[0]["reason"]
            .as_str()
            .unwrap()
            .contains("another team")
    );
    assert!(noticed[0]["address"].is_string());
    assert_eq!(bed.catalog.read().hosts.named("web-1")[0], known.id);
}

#[tokio::test]
async fn other_hardware_is_another_host_and_the_same_is_the_same() {
    let bed = two_teams(Settings::default()).await;
    let first = key(&bed, "clone", "a", Some(("U-1", "-1"))).await;
    let second = key(&bed, "clone", "a", Some(("U-2", "-1"))).await;
    // Boards of one model with one UUID.
    let third = key(&bed, "clone", "a", Some(("u-2", "S3"))).await;
    assert_eq!(
        host(&bed, &second),
        None,
        "no serial number tells the third from the second"
    );
    let fourth = key(&bed, "clone", "a", Some(("U-2", "S4"))).await;
    let ids = [&first, &third, &fourth].map(|key| host(&bed, key).unwrap().id);
    assert!(ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
    let again = key(&bed, "clone", "a", Some(("U-2", "s3"))).await;
    assert_eq!(host(&bed, &again).unwrap().id, ids[1]);
    assert!(host(&bed, &first).is_some() && host(&bed, &fourth).is_some());
    // Another node, or this one after a restart, knows them apart as well.
    let other = bed.second_node().await;
    let again = key(&other, "clone", "a", Some(("U-1", "0"))).await;
    assert_eq!(host(&other, &again).unwrap().id, ids[0]);
    assert_eq!(other.catalog.read().hosts.by_identifier("clone").count(), 3);
    assert!(
        !acts(&bed, "reenrolled_host").is_empty(),
        "of hosts that were online"
    );
}

#[tokio::test]
async fn a_transferred_host_comes_back_by_either_secret_and_stays_where_it_is() {
    let bed = two_teams(Settings::default()).await;
    let hardware = Some(("U-1", "S1"));
    let id = host(&bed, &key(&bed, "pc", "a", hardware).await)
        .unwrap()
        .id;
    transfer(&bed, id, B).await;
    for secret in ["a", "b"] {
        let again = host(&bed, &key(&bed, "pc", secret, hardware).await).unwrap();
        assert_eq!((again.id, again.team), (id, Some(B)), "{secret}");
    }
    let stranger = host(&bed, &key(&bed, "pc", "a", None).await).unwrap();
    assert_ne!(
        stranger.id, id,
        "who cannot tell the hardware is not let into B by A's secret"
    );
}

#[tokio::test]
async fn a_host_that_enrolls_again_and_again_has_to_wait() {
    let bed = Bed::new().await;
    let burst = limits::ENROLMENTS_OF_A_HOST.burst.get();
    for _ in 0..=burst {
        key(&bed, "clone", SECRET, None).await;
    }
    let last = key(&bed, "other", SECRET, None).await;
    let (status, said) = enroll(&bed, "clone", SECRET, None).await;
    assert_eq!(status, 429, "{said}");
    assert!(said["error"].as_str().unwrap().contains("wait"), "{said}");
    assert!(host(&bed, &last).is_some());
    bed.pass(61);
    key(&bed, "clone", SECRET, None).await;
    assert_eq!(acts(&bed, "reenrolled_host").len(), burst as usize + 1);
}

#[tokio::test]
async fn one_secret_from_one_address_enrolls_at_a_rate_and_up_to_a_number() {
    let settings = Settings {
        enrolments: limits::enrolments(1),
        hosts_max: 120,
        ..Settings::default()
    };
    let bed = two_teams(settings).await;
    for at in 0..100 {
        key(&bed, &format!("h{at}"), SECRET, None).await;
    }
    let (status, _) = enroll(&bed, "late", SECRET, None).await;
    assert_eq!(status, 429);
    key(&bed, "other", "a", None).await;
    bed.pass(100);
    for at in 0..19 {
        key(&bed, &format!("i{at}"), SECRET, None).await;
    }
    let (status, said) = enroll(&bed, "one more", SECRET, None).await;
    assert_eq!(status, 403);
    assert!(
        said["error"].as_str().unwrap().contains("--hosts"),
        "{said}"
    );
    key(&bed, "h1", SECRET, None).await;
}

#[tokio::test]
async fn a_host_that_left_the_team_is_not_handed_its_queries() {
    let bed = two_teams(Settings::default()).await;
    let mover = key(&bed, "pc", "a", None).await;
    let id = host(&bed, &mover).unwrap().id;
    let question = answerback::results::Question {
        query_id: Default::default(),
        query_name: None,
        user_id: Default::default(),
        sql: "select 1".to_owned(),
        targets: std::sync::Arc::new([id.0].into_iter().collect()),
        teams: vec![Some(A)],
    };
    let targets = std::sync::Arc::clone(&question.targets);
    use answerback::store::Store as _;
    let campaign = bed.store.create(question, bed.clock.now()).await.unwrap();
    let live = format!("fleet_distributed_query_{}", campaign.id);
    let mut departures = bed.catalog.departures();
    departures.mark_unchanged();
    transfer(&bed, id, B).await;
    assert!(departures.has_changed().unwrap(), "viewers are told");
    let (_, said) = bed
        .post("distributed/read", &json!({ "node_key": mover }))
        .await;
    assert_eq!(said["queries"].get(&live), None, "{said}");
    let gone = bed
        .catalog
        .departed(campaign.id, &targets, &[Some(A)])
        .await
        .unwrap();
    assert!(gone.contains(id.0));
    transfer(&bed, id, A).await;
    let (_, said) = bed
        .post("distributed/read", &json!({ "node_key": mover }))
        .await;
    assert_eq!(said["queries"][&live], "select 1", "{said}");
}
