//! The few REST calls a run needs: log in, create a campaign.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::exchange::{Reply, once};
use crate::target::Target;

/// Who runs the test.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    Token(String),
    Password { email: String, password: String },
}

/// The token of the user.
pub(crate) async fn token(target: &Target, login: &Login) -> anyhow::Result<String> {
    let (email, password) = match login {
        Login::Token(token) => return Ok(token.clone()),
        Login::Password { email, password } => (email, password),
    };
    let body = json!({ "email": email, "password": password });
    let said = call(target, None, "/login", &body).await?;
    let token = said.get("token").and_then(Value::as_str);
    Ok(token.context("the login gave no token")?.to_owned())
}

/// Creates a campaign over all hosts; its id.
pub(crate) async fn campaign(target: &Target, token: &str, query: &str) -> anyhow::Result<u64> {
    let body = json!({
        "query": query,
        "selected": { "hosts": [], "labels": ["All Hosts"] },
    });
    let said = call(target, Some(token), "/queries/run_by_names", &body).await?;
    let id = said.pointer("/campaign/id").and_then(Value::as_u64);
    id.context("the server created a campaign without an id")
}

async fn call(
    target: &Target,
    token: Option<&str>,
    path: &str,
    body: &Value,
) -> anyhow::Result<Value> {
    let path = format!("/api/{}/fleet{path}", target.version);
    let mut headers = "Content-Type: application/json\r\n".to_owned();
    if let Some(token) = token {
        ensure!(!token.contains(['\r', '\n']), "the token is not one line");
        headers.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    let body = body.to_string();
    let reply = once(target, "POST", &path, &headers, body.as_bytes()).await?;
    said(&path, &reply)
}

/// The JSON of a reply that is a success.
pub(crate) fn said(path: &str, reply: &Reply) -> anyhow::Result<Value> {
    if !(200..300).contains(&reply.status) {
        let start = &reply.body[..reply.body.len().min(300)];
        let text = String::from_utf8_lossy(start);
        let words: Vec<&str> = text.split_whitespace().collect();
        bail!("{path} answered {}: {}", reply.status, words.join(" "));
    }
    serde_json::from_slice(&reply.body).with_context(|| format!("{path} answered no JSON"))
}
