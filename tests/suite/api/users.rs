//! Users, programs and their tokens.

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, PASSWORD, Server, TOKEN};

fn person(email: &str) -> Value {
    json!({"name": "P", "email": email, "password": PASSWORD, "global_role": "observer", "admin_forced_password_reset": false})
}

async fn login(server: &Server, email: &str, password: &str) -> (u16, Value) {
    let body = json!({"email": email, "password": password}).to_string();
    let reply = server
        .send(Method::POST, "/api/v1/fleet/login", &[], body)
        .await;
    (reply.status, reply.json())
}

#[tokio::test]
async fn people_are_made_and_see_themselves() {
    let server = Server::start().await;
    let made = server.post("/users/admin", person("p@example.com")).await["user"].clone();
    server
        .gives(409, Method::POST, "/users/admin", person("P@EXAMPLE.com"))
        .await;
    let (status, said) = login(&server, "p@example.com", PASSWORD).await;
    assert_eq!(status, 200);
    let token = said["token"].as_str().unwrap().to_owned();
    let path = format!("/users/{}", made["id"]);
    server.gives_as(&token, 200, Method::GET, &path, NONE).await;
    server
        .gives_as(&token, 403, Method::GET, "/users/1", NONE)
        .await;
    // Whoever was in is out when the password is changed for them.
    let body = json!({"password": "another good password"});
    server.gives(200, Method::PATCH, &path, body).await;
    server.gives_as(&token, 401, Method::GET, "/me", NONE).await;
    assert_eq!(
        login(&server, "p@example.com", "another good password")
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn people_are_changed_and_deleted() {
    let server = Server::start().await;
    let team = server.team("T").await;
    let made = server.post("/users/admin", person("p@example.com")).await["user"].clone();
    let path = format!("/users/{}", made["id"]);
    let teams = json!([{"id": team, "role": "maintainer"}]);
    let body = json!({"name": "N", "email": "n@example.com", "teams": teams});
    let user = server.gives(200, Method::PATCH, &path, body).await["user"].clone();
    let role = json!([{"id": team, "name": "T", "role": "maintainer"}]);
    assert_eq!(
        (&user["global_role"], &user["teams"]),
        (&json!(null), &role)
    );
    assert_eq!(
        login(&server, "p@example.com", PASSWORD).await.0,
        401,
        "an old address"
    );
    let body = json!({"global_role": "admin"});
    let user = server.gives(200, Method::PATCH, &path, body).await["user"].clone();
    assert_eq!(
        (&user["global_role"], &user["teams"]),
        (&json!("admin"), &json!([]))
    );
    server.gives(200, Method::DELETE, &path, NONE).await;
    assert_eq!(login(&server, "n@example.com", PASSWORD).await.0, 401);
    server.gives(404, Method::GET, &path, NONE).await;
    let mut namesake = person("n@example.com");
    namesake["name"] = json!("P of N");
    server.post("/users/admin", namesake).await;
    let found = server.get("/users?query=p+of+n").await;
    assert_eq!(found["users"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn bad_users_are_told_which_field() {
    let server = Server::start().await;
    for (field, value) in [
        ("name", json!("")),
        ("email", json!("no address")),
        ("email", json!("a b@c")),
        ("password", json!("short")),
        ("global_role", json!("god")),
        ("teams", json!([{"id": 1, "role": "god"}])),
    ] {
        let mut body = person("x@example.com");
        body[field] = value;
        let (status, said) = server.call(Method::POST, "/users/admin", body).await;
        let name = said["errors"][0]["name"].as_str().unwrap();
        assert!(status == 422 && name.starts_with(field), "{said}");
    }
    let (status, said) = server.call(Method::POST, "/users/admin", json!({})).await;
    assert_eq!((status, said["errors"].as_array().unwrap().len()), (422, 3));
    let mut body = person("x@example.com");
    body["teams"] = json!([{"id": 77, "role": "observer"}]);
    server.gives(404, Method::POST, "/users/admin", body).await;
}

#[tokio::test]
async fn the_last_admin_cannot_be_taken_away() {
    let server = Server::start().await;
    for change in [
        json!({"global_role": "observer"}),
        json!({"teams": [{"id": 1, "role": "admin"}]}),
    ] {
        server
            .call(Method::POST, "/teams", json!({"name": "T"}))
            .await;
        let (status, said) = server.call(Method::PATCH, "/users/1", change).await;
        assert_eq!(
            (status, &said["errors"][0]["name"]),
            (422, &json!("global_role"))
        );
    }
    server.gives(422, Method::DELETE, "/users/1", NONE).await;
    let second = server.user(Some("admin"), &[]).await;
    server.gives(200, Method::DELETE, "/users/1", NONE).await;
    server.gives_as(TOKEN, 401, Method::GET, "/me", NONE).await;
    server
        .gives_as(&second, 200, Method::GET, "/users", NONE)
        .await;
}

#[tokio::test]
async fn programs_have_tokens_that_last_until_they_are_revoked() {
    let server = Server::start().await;
    let said = server
        .post(
            "/users/api_only",
            json!({"name": "CI", "global_role": "maintainer"}),
        )
        .await;
    assert_eq!(
        (
            &said["user"]["api_only"],
            &said["user"]["force_password_reset"]
        ),
        (&json!(true), &json!(false))
    );
    let (id, first) = (
        said["user"]["id"].clone(),
        said["token"].as_str().unwrap().to_owned(),
    );
    let second = server
        .post(&format!("/users/{id}/tokens"), json!(null))
        .await["token"]
        .as_str()
        .unwrap()
        .to_owned();
    server
        .clock
        .advance(std::time::Duration::from_secs(3650 * 24 * 3600));
    for token in [&first, &second] {
        server
            .gives_as(token, 200, Method::GET, "/hosts", NONE)
            .await;
        // No end by accident, and no word that there was one.
        server
            .gives_as(token, 422, Method::POST, "/logout", NONE)
            .await;
    }
    let path = format!("/users/{id}/sessions");
    assert_eq!(
        server.call(Method::DELETE, &path, NONE).await,
        (200, json!({}))
    );
    for token in [&first, &second] {
        server
            .gives_as(token, 401, Method::GET, "/hosts", NONE)
            .await;
    }
    // People log in.
    server
        .gives(400, Method::POST, "/users/1/tokens", json!(null))
        .await;
    let path = "/users/1/require_password_reset";
    let said = server.post(path, json!({"require": true})).await;
    assert_eq!(said["user"]["force_password_reset"], true);
    // A preset token stays good.
    server.gives_as(TOKEN, 200, Method::GET, "/me", NONE).await;
}

#[tokio::test]
async fn a_programs_tokens_are_named_dated_revoked_and_bounded_and_its_log_ins_end() {
    let server = Server::start().await;
    let program = json!({"name": "p", "email": "p@example.com", "password": "a good long password", "global_role": "observer"});
    let made = server.post("/users/api_only", program).await;
    let id = made["user"]["id"].clone();
    let tokens = format!("/users/{id}/tokens");
    let dated = server
        .post(&tokens, json!({"name": "ci", "expires_in_days": 2}))
        .await;
    let named = server.post(&tokens, json!({"name": "backup"})).await;
    let listed = server.get(&tokens).await;
    let names: Vec<_> = listed["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["name"].clone())
        .collect();
    assert_eq!(names.len(), 3, "{listed}");
    assert!(
        names.contains(&json!("first")) && names.contains(&json!("ci")),
        "{listed}"
    );
    assert!(!listed.to_string().contains("abk_"), "{listed}");
    for wrong in [
        json!({"expires_in_days": 0}),
        json!({"expires_in_days": 4_000}),
        json!({"name": "a\u{202e}b"}),
    ] {
        server.gives(422, Method::POST, &tokens, wrong).await;
    }
    let named_token = named["token"].as_str().unwrap();
    let one = format!("{tokens}/{}", named["id"].as_str().unwrap());
    server
        .gives_as(named_token, 200, Method::GET, "/hosts", NONE)
        .await;
    server.gives(200, Method::DELETE, &one, NONE).await;
    server
        .gives_as(named_token, 401, Method::GET, "/hosts", NONE)
        .await;
    server.gives(404, Method::DELETE, &one, NONE).await;
    for _ in 2..50 {
        server.post(&tokens, json!(null)).await;
    }
    let said = server.gives(422, Method::POST, &tokens, json!(null)).await;
    assert!(
        said["errors"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("50 tokens"),
        "{said}"
    );
    server
        .clock
        .advance(std::time::Duration::from_secs(3 * 24 * 3600));
    let dated = dated["token"].as_str().unwrap();
    server
        .gives_as(dated, 401, Method::GET, "/hosts", NONE)
        .await;
}

#[tokio::test]
async fn a_log_in_of_a_program_ends_like_one_of_a_person() {
    let server = Server::start().await;
    let program = json!({"name": "p", "email": "p@example.com", "password": "a good long password", "global_role": "observer"});
    server.post("/users/api_only", program).await;
    let log_in = json!({"email": "p@example.com", "password": "a good long password"});
    let session = server.post("/login", log_in.clone()).await["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = server.post("/login", log_in).await["token"]
        .as_str()
        .unwrap()
        .to_owned();
    server
        .gives_as(&session, 200, Method::POST, "/logout", NONE)
        .await;
    server
        .gives_as(&session, 401, Method::GET, "/hosts", NONE)
        .await;
    server
        .clock
        .advance(std::time::Duration::from_secs(30 * 24 * 3600));
    server
        .gives_as(&other, 401, Method::GET, "/hosts", NONE)
        .await;
}
