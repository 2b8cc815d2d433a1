//! Logging in and out, and what happens to those who guess.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::server::{EMAIL, NONE, PASSWORD, Reply, Server, TOKEN};

async fn login(server: &Server, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password}).to_string();
    server
        .send(Method::POST, "/api/v1/fleet/login", &[], body)
        .await
}

async fn token(server: &Server, email: &str, password: &str) -> String {
    let reply = login(server, email, password).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_begins_lasts_five_days_and_ends() {
    let server = Server::start().await;
    let reply = login(&server, "ADMIN@example.com", PASSWORD).await;
    let said = reply.json();
    assert_eq!(
        (&said["user"]["email"], &said["user"]["global_role"]),
        (&json!(EMAIL), &json!("admin"))
    );
    assert!(!reply.text().contains("argon2"), "no hash is told");
    let token = said["token"].as_str().unwrap();
    assert!(token.starts_with("abk_"));
    let (status, me) = server.call_as(token, Method::GET, "/me", NONE).await;
    assert_eq!((status, &me["user"]["id"]), (200, &said["user"]["id"]));
    server.clock.advance(Duration::from_secs(5 * 24 * 3600 - 1));
    server.gives_as(token, 200, Method::GET, "/me", NONE).await;
    server.clock.advance(Duration::from_secs(1));
    // It is over.
    server.gives_as(token, 401, Method::GET, "/me", NONE).await;
    let second = self::token(&server, EMAIL, PASSWORD).await;
    let (status, said) = server.call_as(&second, Method::POST, "/logout", NONE).await;
    assert_eq!((status, said), (200, json!({})));
    server
        .gives_as(&second, 401, Method::GET, "/me", NONE)
        .await;
    // A program's token does not log out.
    server.gives(422, Method::POST, "/logout", NONE).await;
    server.get("/me").await;
    assert_eq!(
        server.catalog.read().tokens.len(),
        1,
        "what is over is forgotten"
    );
}

#[tokio::test]
async fn failures_are_alike_slow_and_few() {
    let server = Server::start().await;
    let started = std::time::Instant::now();
    let unknown = login(&server, "nobody@example.com", PASSWORD).await;
    let wrong = login(&server, EMAIL, "wrong").await;
    assert!(
        started.elapsed() >= Duration::from_millis(100),
        "each takes its time"
    );
    assert_eq!((unknown.status, wrong.status), (401, 401));
    assert_eq!(unknown.json(), wrong.json());
    assert_eq!(wrong.json()["message"], "Authentication failed");
    for _ in 0..9 {
        assert_eq!(login(&server, EMAIL, "wrong").await.status, 401);
    }
    let refused = login(&server, EMAIL, PASSWORD).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, "6"),
        "even the right one"
    );
    // Who is in stays in.
    server.gives(200, Method::GET, "/me", NONE).await;
    server.clock.advance(Duration::from_secs(6));
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);
}

#[tokio::test]
async fn guesses_sent_at_once_do_not_outrun_the_count() {
    let server = Server::start().await;
    let guesses = (0..40).map(|_| login(&server, EMAIL, "wrong"));
    let replies = futures_util::future::join_all(guesses).await;
    let looked_at = replies.iter().filter(|reply| reply.status == 401).count();
    assert_eq!(looked_at, 10);
    assert!(
        replies
            .iter()
            .all(|reply| [401, 429].contains(&reply.status))
    );
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions() {
    let server = Server::start().await;
    let (mine, other) = (
        token(&server, EMAIL, PASSWORD).await,
        token(&server, EMAIL, PASSWORD).await,
    );
    let change = |old: &str, new: &str| json!({"old_password": old, "new_password": new});
    let path = "/change_password";
    for (old, new, field) in [
        ("wrong", "another good password", "old_password"),
        (PASSWORD, "short", "new_password"),
        (PASSWORD, PASSWORD, "new_password"),
    ] {
        let (status, said) = server
            .call_as(&mine, Method::POST, path, change(old, new))
            .await;
        assert_eq!(
            (status, &said["errors"][0]["name"]),
            (422, &json!(field)),
            "{said}"
        );
    }
    let body = change(PASSWORD, "another good password");
    server.gives_as(&mine, 200, Method::POST, path, body).await;
    server.gives_as(&mine, 200, Method::GET, "/me", NONE).await;
    server.gives_as(&other, 401, Method::GET, "/me", NONE).await;
    // Programs stay.
    server.gives_as(TOKEN, 200, Method::GET, "/me", NONE).await;
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 401);
    assert_eq!(
        login(&server, EMAIL, "another good password").await.status,
        200
    );
}

#[tokio::test]
async fn who_must_change_the_password_can_do_nothing_else() {
    let server = Server::start().await;
    let body = json!({"name": "New", "email": "new@example.com", "password": "chosen by the admin", "global_role": "observer"});
    let said = server.post("/users/admin", body).await;
    assert_eq!(said["user"]["force_password_reset"], true);
    let token = token(&server, "new@example.com", "chosen by the admin").await;
    let (status, said) = server.call_as(&token, Method::GET, "/hosts", NONE).await;
    assert_eq!(
        (status, &said["message"]),
        (401, &json!("password reset required"))
    );
    server.gives_as(&token, 200, Method::GET, "/me", NONE).await;
    let path = "/perform_required_password_reset";
    let weak = json!({"new_password": "x"});
    server.gives_as(&token, 422, Method::POST, path, weak).await;
    let body = json!({"new_password": "chosen by myself"});
    let (status, said) = server
        .call_as(&token, Method::POST, path, body.clone())
        .await;
    assert_eq!(
        (status, &said["user"]["force_password_reset"]),
        (200, &json!(false))
    );
    server
        .gives_as(&token, 200, Method::GET, "/hosts", NONE)
        .await;
    // Once.
    server.gives_as(&token, 400, Method::POST, path, body).await;
}

#[tokio::test]
async fn a_user_has_a_bounded_number_of_sessions() {
    let server = Server::start().await;
    let first = token(&server, EMAIL, PASSWORD).await;
    server.clock.advance(Duration::from_secs(1));
    for _ in 0..200 {
        token(&server, EMAIL, PASSWORD).await;
    }
    assert_eq!(
        server.catalog.read().tokens.len(),
        201,
        "the preset one and 200"
    );
    // The oldest went.
    server.gives_as(&first, 401, Method::GET, "/me", NONE).await;
}
