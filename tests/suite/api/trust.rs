//! What colleagues may not see or take.

use serde_json::json;
use warp::http::Method;

use super::server::{NONE, Server};

#[tokio::test]
async fn the_settings_are_shown_by_role_and_no_secret_to_anybody() {
    let server = Server::start().await;
    let team = server.team("t").await;
    let settings = json!({
        "agent_options": {"config": {"options": {"aws_secret_access_key": "hush-1", "logger_plugin": "tls"}}},
        "smtp_settings": {"server": "mail", "password": "hush-2"},
        "other": {"api_token": "hush-3", "name": "n"},
    });
    server.gives(200, Method::PATCH, "/config", settings).await;
    let shown = server.get("/config").await;
    assert_eq!(
        shown["smtp_settings"],
        json!({"server": "mail", "password": "********"})
    );
    assert_eq!(shown["other"]["name"], "n");
    // What is read and written back changes nothing that was hidden.
    server
        .gives(200, Method::PATCH, "/config", shown.clone())
        .await;
    let change = json!({"smtp_settings": {"server": "other", "password": "********"}});
    let said = server.gives(200, Method::PATCH, "/config", change).await;
    assert!(!shown.to_string().contains("hush") && !said.to_string().contains("hush"));
    {
        let state = server.catalog.read();
        let kept = format!(
            "{:?} {}",
            state.app.other,
            state.app.agent_options.as_ref().unwrap()
        );
        assert!(
            ["hush-1", "hush-2", "hush-3", "other"]
                .iter()
                .all(|each| kept.contains(each)),
            "{kept}"
        );
    }
    let observer = server.user(None, &[(team, "observer")]).await;
    let maintainer = server.user(Some("maintainer"), &[]).await;
    for token in [&observer, &maintainer] {
        let shown = server
            .gives_as(token, 200, Method::GET, "/config", NONE)
            .await;
        assert_eq!(
            (shown.get("agent_options"), shown.get("smtp_settings")),
            (None, None)
        );
        assert_eq!(shown["server_settings"]["live_query_disabled"], false);
    }
    let options = json!({"config": {"options": {"x": "hush-4"}}});
    server
        .post(&format!("/teams/{team}/agent_options"), options)
        .await;
    let path = format!("/teams/{team}");
    let shown = server
        .gives_as(&observer, 200, Method::GET, &path, NONE)
        .await;
    assert_eq!(shown["team"]["agent_options"], NONE, "{shown}");
    assert!(server.get(&path).await.to_string().contains("hush-4"));
}

#[tokio::test]
async fn a_teams_admin_does_not_take_the_global_secret() {
    let server = Server::start().await;
    let team = server.team("t").await;
    let secrets = |text: &str| json!({"secrets": [{"secret": text}]});
    server
        .post(
            "/spec/enroll_secret",
            json!({"spec": secrets("of all hosts")}),
        )
        .await;
    let admin = server.user(None, &[(team, "admin")]).await;
    let path = format!("/teams/{team}/secrets");
    let said = server
        .gives_as(&admin, 422, Method::PATCH, &path, secrets("of all hosts"))
        .await;
    assert!(
        said["errors"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("choose another"),
        "{said}"
    );
    let spec = json!({"specs": [{"name": "t", "secrets": [{"secret": "of all hosts"}]}]});
    server
        .gives_as(&admin, 422, Method::POST, "/spec/teams", spec.clone())
        .await;
    server
        .gives_as(&admin, 200, Method::PATCH, &path, secrets("of this team"))
        .await;
    // Who may set the global ones may share them.
    server.post("/spec/teams", spec).await;
    server
        .gives_as(&admin, 200, Method::PATCH, &path, secrets("of all hosts"))
        .await;
}

#[tokio::test]
async fn the_spec_of_a_manual_label_names_the_hosts_that_one_sees() {
    let server = Server::start().await;
    let (ours, theirs) = (server.team("ours").await, server.team("theirs").await);
    server.host("here", Some(ours), &[]).await;
    server.host("there", Some(theirs), &[]).await;
    let label = json!({"name": "l", "label_membership_type": "manual", "hosts": ["here", "there", "nowhere"]});
    server.post("/spec/labels", json!({"specs": [label]})).await;
    let observer = server.user(None, &[(ours, "observer")]).await;
    for path in ["/spec/labels/l", "/spec/labels"] {
        let said = server
            .gives_as(&observer, 200, Method::GET, path, NONE)
            .await
            .to_string();
        assert!(
            said.contains("here\"") && !said.contains("there\"") && !said.contains("nowhere"),
            "{said}"
        );
        let said = server.get(path).await.to_string();
        assert!(
            ["here", "there", "nowhere"]
                .iter()
                .all(|name| said.contains(&format!("\"{name}\""))),
            "{said}"
        );
    }
}
