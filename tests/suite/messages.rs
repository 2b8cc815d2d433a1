//! What viewers hear, held against the JSON Schema that the broker serves.

use http::Method;
use serde_json::{Value, json};

use crate::api::schema::faults;
use crate::broker::{Broker, TOKEN};
use crate::hosts::{Host, agent};
use crate::viewer::Viewer;

async fn served(broker: &Broker) -> Value {
    let (status, schema) = broker
        .send(Method::GET, "/api/schema/viewer.json", &[], "".into())
        .await;
    assert_eq!(status, 200);
    schema
}

fn assert_fits(message: &Value, side: &str, schema: &Value) {
    let faults = faults(message, &schema["$defs"][side], schema);
    assert!(faults.is_empty(), "{message}: {faults:#?}");
}

/// A message of this type, held against the schema.
async fn next(viewer: &mut Viewer, kind: &str, schema: &Value) -> Value {
    let message = viewer.message().await;
    assert_eq!(message["type"], kind, "{message}");
    assert_fits(&message, "from_server", schema);
    assert_fits(&message, kind, schema);
    message
}

#[tokio::test]
async fn every_kind_of_message_fits_the_schema_that_is_served() {
    let broker = Broker::start(&[]).await;
    let schema = served(&broker).await;
    let hosts = Host::enroll_many(&broker, 3).await;
    for host in &hosts {
        host.read(&broker).await;
    }
    let campaign = broker.run_on_all("select 1").await;
    let auth = json!({ "type": "auth", "data": { "token": TOKEN } });
    let select = json!({ "type": "select_campaign", "data": { "campaign_id": campaign } });
    let mut viewer = Viewer::connect(&broker).await;
    for said in [&auth, &select] {
        assert_fits(said, "from_client", &schema);
        viewer.say(said).await;
    }
    next(&mut viewer, "totals", &schema).await;
    next(&mut viewer, "status", &schema).await;
    let rows = json!([{ "a": "1", "b": 2, "c": null, "d": true }, null]);
    assert_eq!(hosts[0].answer(&broker, campaign, rows).await, 200);
    next(&mut viewer, "result", &schema).await;
    let failed = hosts[1].fail(&broker, campaign, "no such table: x").await;
    assert_eq!(failed, 200);
    let failed = next(&mut viewer, "result", &schema).await;
    assert_eq!(failed["data"]["error"], "no such table: x");
    let name = format!("fleet_distributed_query_{campaign}");
    let stats = json!({ "wall_time_ms": 5, "user_time": 1, "system_time": 2, "memory": 4096 });
    let body = json!({
        "node_key": hosts[2].node_key,
        "queries": { name.clone(): [] },
        "statuses": { name.clone(): 0 },
        "stats": { name: stats },
    });
    assert_eq!(agent(&broker, "distributed/write", &body).await.0, 200);
    let measured = next(&mut viewer, "result", &schema).await;
    assert_eq!(measured["data"]["stats"], stats);
    let finished = next(&mut viewer, "status", &schema).await;
    assert_eq!(finished["data"]["status"], "finished");
}

#[tokio::test]
async fn refusals_fit_the_schema_too() {
    let broker = Broker::start(&[]).await;
    let schema = served(&broker).await;
    let auth = |token: &str| json!({ "type": "auth", "data": { "token": token } });
    let mut viewer = Viewer::connect(&broker).await;
    viewer.say(&auth("wrong")).await;
    let refused = next(&mut viewer, "error", &schema).await;
    assert_eq!(refused["data"], "unauthorized");
    let mut viewer = Viewer::connect(&broker).await;
    viewer.say(&auth(TOKEN)).await;
    viewer.select(0, 0).await;
    let refused = next(&mut viewer, "error", &schema).await;
    assert_eq!(refused["data"], "0 is not a valid campaign ID");
    for bad in [
        json!({ "type": "result", "data": {} }),
        json!({ "type": "totals", "data": { "count": -1 } }),
        json!({ "type": "error", "data": {} }),
        json!({ "type": "odd", "data": "" }),
    ] {
        let found = faults(&bad, &schema["$defs"]["from_server"], &schema);
        assert!(!found.is_empty(), "{bad} fits");
    }
}
