//! Campaigns over the API: who is asked, what has come, and the results as files.

use std::time::Duration;

use answerback::results::{CampaignId, Ending};
use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server, TOKEN};

async fn run(server: &Server, body: Value) -> (u16, Value) {
    server.call(Method::POST, "/queries/run", body).await
}

async fn total(server: &Server, selected: Value) -> u64 {
    let (status, said) = run(server, json!({"query": "select 1", "selected": selected})).await;
    assert_eq!(status, 200, "{said}");
    said["campaign"]["Metrics"]["TotalHosts"].as_u64().unwrap()
}

#[tokio::test]
async fn selections_combine_as_the_rule_says() {
    let server = Server::start().await;
    let (one, two) = (server.team("One").await, server.team("Two").await);
    let label = json!({"name": "L", "query": "select 1"});
    let label = server.post("/labels", label).await["label"]["id"].clone();
    let regular = u32::try_from(label.as_u64().unwrap()).unwrap();
    server.host("a", Some(one), &[8, regular]).await;
    server.host("b", Some(one), &[8]).await;
    server.host("c", Some(two), &[7, regular]).await;
    server.host("d", None, &[7]).await;
    for (selected, hosts, why) in [
        (
            json!({"hosts": [1, 4, 4, 99, 4_294_967_297_u64]}),
            2,
            "unknown hosts add nobody",
        ),
        (json!({"labels": [7, 8]}), 4, "platforms are added up"),
        (json!({"labels": [7, regular]}), 1, "kinds narrow"),
        (json!({"teams": [one, two]}), 3, "teams are added up"),
        (json!({"fleets": [0]}), 1, "team 0 is no team"),
        (
            json!({"labels": [8], "teams": [one], "hosts": [4]}),
            3,
            "named hosts are in",
        ),
        (
            json!({"labels": [6], "teams": [one]}),
            4,
            "All Hosts are all",
        ),
        (
            json!({"hosts": [1], "labels": null, "teams": null}),
            1,
            "null is nothing",
        ),
    ] {
        assert_eq!(total(&server, selected).await, hosts, "{why}");
    }
    let nobody = [
        json!({}),
        json!({"labels": [99]}),
        json!({"hosts": [0]}),
        json!({"teams": [99]}),
    ];
    for selected in nobody.into_iter().chain([json!(null)]) {
        let body = json!({"query": "select 1", "selected": selected});
        let (status, said) = run(&server, body).await;
        let reason = &said["errors"][0]["reason"];
        assert_eq!(
            (status, reason),
            (400, &json!("no hosts targeted")),
            "{selected}"
        );
    }
}

#[tokio::test]
async fn names_select_by_any_name_and_unknown_labels_are_named() {
    let server = Server::start().await;
    server.team("Team A").await;
    server.host("Web.local", Some(1), &[]).await;
    server.host("db", None, &[]).await;
    let path = "/queries/run_by_identifiers";
    for name in [
        "web.LOCAL",
        "uuid-web.local",
        "SERIAL-web.local",
        "identifier-Web.local",
    ] {
        let body = json!({"query": "select 1", "selected": {"hosts": [name, "unknown"]}});
        let said = server.post(path, body).await;
        assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 1, "{name}");
    }
    let said = server
        .post(
            path,
            json!({"query": "select 1", "selected": {"teams": ["Team A"]}}),
        )
        .await;
    assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 1);
    let said = server
        .post(
            path,
            json!({"query": "select 1", "selected": {"teams": [1]}}),
        )
        .await;
    assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 1);
    let body =
        json!({"query": "select 1", "selected": {"labels": ["All Hosts", "Nope", "Neither"]}});
    let (status, said) = server.call(Method::POST, path, body).await;
    assert_eq!(
        (status, &said["errors"][0]["reason"]),
        (400, &json!("Invalid label names: Nope, Neither"))
    );
    let body = json!({"query": "select 1", "selected": {"hosts": ["unknown"]}});
    let (status, said) = server.call(Method::POST, path, body).await;
    assert_eq!(
        (status, &said["errors"][0]["reason"]),
        (400, &json!("no hosts targeted"))
    );
}

#[tokio::test]
async fn a_query_is_needed_and_a_saved_one_wins() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let selected = json!({"hosts": [1]});
    for body in [
        json!({"selected": selected}),
        json!({"query": " ", "selected": selected}),
        json!({"query_id": null, "selected": selected}),
    ] {
        let (status, said) = run(&server, body).await;
        let reason = "one of query or query_id must be specified";
        let expected = json!({"message": "Validation Failed", "errors": [{"name": "query", "reason": reason}]});
        assert_eq!((status, said), (422, expected));
    }
    let (status, said) = run(&server, json!({"query_id": 77, "selected": selected})).await;
    assert_eq!(
        (status, &said["errors"][0]["reason"]),
        (404, &json!("Query 77 was not found in the datastore"))
    );
    let saved = server
        .post(
            "/queries",
            json!({"name": "Saved", "query": "select 'saved'"}),
        )
        .await;
    let id = saved["query"]["id"].clone();
    let (_, said) = run(
        &server,
        json!({"query": "select 'typed'", "report_id": id, "selected": selected}),
    )
    .await;
    assert_eq!(said["campaign"]["query_id"], id);
    let path = format!("/campaigns/{}", said["campaign"]["id"]);
    let campaign = server.get(&path).await["campaign"].clone();
    assert_eq!(
        (&campaign["query"], &campaign["query_name"]),
        (&json!("select 'saved'"), &json!("Saved"))
    );
    let (_, said) = run(
        &server,
        json!({"query": "select 'typed'", "selected": selected}),
    )
    .await;
    assert_ne!(said["campaign"]["query_id"], id);
    assert_eq!(
        server.get("/queries").await["count"],
        1,
        "typed SQL is not saved"
    );
    let hidden = said["campaign"]["query_id"].clone();
    assert_eq!(
        run(&server, json!({"query_id": hidden, "selected": selected}))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn live_queries_that_are_switched_off_are_refused() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let off = json!({"server_settings": {"live_query_disabled": true}});
    server.call(Method::PATCH, "/config", off).await;
    let (status, said) = run(
        &server,
        json!({"query": "select 1", "selected": {"hosts": [1]}}),
    )
    .await;
    let reason = "live queries are disabled by administrator";
    assert_eq!(
        (status, &said["errors"][0]["reason"]),
        (403, &json!(reason))
    );
}

#[tokio::test]
async fn campaigns_beyond_the_allowance_are_told_when_to_come_back() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let body = json!({"query": "select 1", "selected": {"hosts": [1]}});
    for _ in 0..100 {
        assert_eq!(run(&server, body.clone()).await.0, 200);
    }
    let reply = server
        .say(TOKEN, Method::POST, "/queries/run", &body.to_string())
        .await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, "1"));
    let other = server.user(Some("maintainer"), &[]).await;
    server
        .gives_as(&other, 200, Method::POST, "/queries/run", body.clone())
        .await;
    server.clock.advance(Duration::from_millis(100));
    let (status, said) = run(&server, body.clone()).await;
    assert_eq!(status, 429);
    assert!(
        said["errors"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("--campaigns"),
        "{said}"
    );
    server
        .gives(200, Method::POST, "/campaigns/1/stop", json!({}))
        .await;
    server.clock.advance(Duration::from_millis(100));
    assert_eq!(run(&server, body).await.0, 200);
}

#[tokio::test]
async fn a_campaign_tells_who_has_answered_and_who_has_not() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.host(name, None, &[]).await;
    }
    server.clock.advance(Duration::from_secs(90));
    (1..=3).for_each(|host| server.check_in(host));
    let id = server.campaign(&[1, 2, 3, 4]).await;
    server.answer(id, 1, json!([{"a": "1"}]), None).await;
    server.answer(id, 2, json!([]), Some("no such table")).await;
    let path = format!("/campaigns/{id}/hosts");
    let said = server.get(&path).await;
    let counts = json!({"answered": 1, "failed": 1, "waiting": 1, "offline": 1});
    assert_eq!(said["counts"], counts);
    for (at, state) in ["answered", "failed", "waiting", "offline"]
        .iter()
        .enumerate()
    {
        assert_eq!(said["hosts"][at]["state"], *state);
        let alone = server
            .get(&format!("{path}?state={state}&per_page=1"))
            .await;
        assert_eq!(alone["hosts"], json!([said["hosts"][at]]), "{state}");
        assert_eq!(alone["meta"]["has_next_results"], false);
    }
    server
        .gives(400, Method::GET, &format!("{path}?state=dead"), NONE)
        .await;
}

#[tokio::test]
async fn a_campaign_is_stopped_once_and_stays_listed() {
    let server = Server::start().await;
    server.host("a", None, &[]).await;
    let id = server.campaign(&[1]).await;
    let path = format!("/campaigns/{id}/stop");
    let stopped = server.post(&path, NONE).await["campaign"].clone();
    assert_eq!(
        (&stopped["state"], &stopped["status"]),
        (&json!("complete"), &json!(2))
    );
    assert_eq!(stopped["ending"], "stopped");
    assert_eq!(
        server.post(&path, NONE).await["campaign"],
        stopped,
        "twice is no fault"
    );
    assert!(server.store.active().is_empty());
    let list = server.get("/campaigns").await["campaigns"].clone();
    assert_eq!(
        (&list[0]["id"], &list[0]["targets_count"]),
        (&json!(id), &json!(1))
    );
}

/// A campaign that three hosts have answered; the path of its results.
async fn answered(server: &Server) -> String {
    for name in ["a", "b", "c"] {
        server.host(name, None, &[]).await;
    }
    let id = server.campaign(&[1, 2, 3]).await;
    server
        .answer(id, 2, json!([{"z": "1", "a": "x,y"}]), None)
        .await;
    server.answer(id, 1, json!([{"b": "\"q\""}]), None).await;
    server.answer(id, 3, json!([]), Some("no such table")).await;
    format!("/campaigns/{id}/results")
}

#[tokio::test]
async fn results_are_exported_as_lines_and_as_one_document_from_any_place() {
    let server = Server::start().await;
    let path = answered(&server).await;
    let reply = server.say(TOKEN, Method::GET, &path, "").await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let text = reply.text();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seqs: Vec<u64> = lines
        .iter()
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(
        (&lines[0]["host"]["id"], &lines[2]["error"]),
        (&json!(2), &json!("no such table"))
    );
    for (after, rest) in [(1, &lines[1..]), (3, &[]), (9, &[])] {
        let path = format!("{path}?format=json&after={after}");
        let json = server.say(TOKEN, Method::GET, &path, "").await.json();
        assert_eq!(json["results"].as_array().unwrap().as_slice(), rest);
    }
    for bad in ["format=xml", "after=-1", "after=x"] {
        let reply = server
            .say(TOKEN, Method::GET, &format!("{path}?{bad}"), "")
            .await;
        assert_eq!(reply.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn results_are_exported_as_a_table() {
    let server = Server::start().await;
    let path = answered(&server).await;
    let csv = server
        .say(TOKEN, Method::GET, &format!("{path}?format=csv"), "")
        .await;
    let expected = [
        "host_id,host_hostname,host_display_name,a,z,b,host_error",
        "2,b,b,\"x,y\",1,,",
        "1,a,a,,,\"\"\"q\"\"\",",
        "3,c,c,,,,no such table",
        "",
    ];
    assert_eq!(csv.text(), expected.join("\r\n"));
    let disposition = "attachment; filename=\"campaign-1.csv\"";
    assert_eq!(csv.header("content-disposition"), disposition);
}

#[tokio::test]
async fn many_results_are_streamed_whole_and_a_forgotten_campaign_says_so() {
    let server = Server::start().await;
    let mut hosts = Vec::new();
    for at in 0..40 {
        hosts.push(server.host(&format!("h{at}"), None, &[]).await);
    }
    let id = server.campaign(&hosts).await;
    let blob = "x".repeat(100_000);
    for host in &hosts {
        server
            .answer(id, *host, json!([{"blob": blob}]), None)
            .await;
    }
    let path = format!("/campaigns/{id}/results");
    for (format, pieces) in [("ndjson", 40), ("csv", 41)] {
        let reply = server
            .say(TOKEN, Method::GET, &format!("{path}?format={format}"), "")
            .await;
        assert_eq!(reply.text().lines().count(), pieces, "{format}");
        assert!(reply.bytes.len() > 4_000_000);
    }
    server
        .store
        .end(CampaignId(id), Ending::Stopped, server.clock.now())
        .await
        .unwrap();
    server.clock.advance(Duration::from_secs(3601));
    server.store.reap(server.clock.now()).await.unwrap();
    let reply = server.say(TOKEN, Method::GET, &path, "").await;
    assert_eq!(reply.status, 404, "{}", reply.text());
    let hosts = server
        .get(&format!("/campaigns/{id}/hosts?state=answered"))
        .await;
    assert_eq!(
        hosts["counts"]["answered"], 40,
        "who has answered is still known"
    );
    assert_eq!(
        server.get(&format!("/campaigns/{id}")).await["campaign"]["state"],
        "complete"
    );
}
