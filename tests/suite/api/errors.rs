//! What clients hear when they are wrong.

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server, TOKEN};

fn errors(name: &str, reason: &str) -> Value {
    json!([{"name": name, "reason": reason}])
}

#[tokio::test]
async fn every_version_means_the_same_and_others_nothing() {
    let server = Server::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    for path in [
        "/api/v1/fleet/me",
        "/api/2022-04/fleet/me",
        "/api/latest/fleet/me",
        "/api/v1/kolide/me",
    ] {
        assert_eq!(
            server.send(Method::GET, path, &headers, "").await.status,
            200,
            "{path}"
        );
    }
    for path in [
        "/api/v2/fleet/me",
        "/api/v1/fleet/nothing",
        "/api/v1/fleet/me/",
        "/api/",
        "/api/v1/fleet",
    ] {
        let reply = server.send(Method::GET, path, &headers, "").await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.json()["message"], "Resource Not Found");
        assert_eq!(
            reply.header("content-type"),
            "application/json; charset=utf-8"
        );
    }
    for path in [
        "/api/v1/fleet/results/info",
        "/api/latest/fleet/results",
        "/api/osquery/enroll",
        "/other",
    ] {
        assert_eq!(
            server.send(Method::GET, path, &headers, "").await.status,
            418,
            "{path} is left to others"
        );
    }
}

#[tokio::test]
async fn a_wrong_method_hears_the_right_ones() {
    let server = Server::start().await;
    for (path, allow) in [
        ("/queries/run", "GET, HEAD, POST"),
        ("/hosts/5", "DELETE, GET, HEAD"),
        ("/spec/queries/x", "GET, HEAD"),
        ("/login", "POST"),
    ] {
        let path = format!("/api/v1/fleet{path}");
        let reply = server.send(Method::PUT, &path, &[], "{}").await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, allow),
            "{path}"
        );
        assert_eq!(reply.json()["message"], "Method Not Allowed");
    }
    let bearer = format!("Bearer {TOKEN}");
    let head = server
        .send(
            Method::HEAD,
            "/api/v1/fleet/me",
            &[("authorization", &bearer)],
            "",
        )
        .await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
}

#[tokio::test]
async fn a_token_is_asked_for_before_anything_is_said() {
    let server = Server::start().await;
    for header in ["", "Bearer", "Basic abc", "Bearer a b", "abk_x"] {
        let reply = server
            .send(
                Method::GET,
                "/api/v1/fleet/hosts",
                &[("authorization", header)],
                "",
            )
            .await;
        assert_eq!(reply.status, 401, "{header:?}");
        let text = "Authorization header required";
        assert_eq!(
            reply.json(),
            json!({"message": text, "errors": errors("base", text)})
        );
    }
    let reply = server.send(
        Method::POST,
        "/api/v1/fleet/queries/run",
        &[("authorization", "Bearer wrong")],
        "{}",
    );
    let text = "Authentication required";
    assert_eq!(
        reply.await.json(),
        json!({"message": text, "errors": errors("base", text)})
    );
    let bearer = format!("bEARER {TOKEN}");
    let reply = server
        .send(
            Method::GET,
            "/api/v1/fleet/me",
            &[("authorization", &bearer)],
            "",
        )
        .await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn bodies_that_are_no_json_are_told_so() {
    let server = Server::start().await;
    let missing = server.say(TOKEN, Method::POST, "/queries/run", " \n").await;
    let expected =
        json!({"message": "Bad request", "errors": errors("base", "Expected JSON Body")});
    assert_eq!((missing.status, missing.json()), (400, expected));
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let deep_field = format!(r#"{{"query": {deep}, "specs": {deep}}}"#);
    let bad = [
        "{",
        "nonsense",
        "[]",
        "1",
        "\u{feff}{}",
        r#"{"specs": 1, "query": 1}"#,
    ];
    let bad = bad.into_iter().chain([deep.as_str(), deep_field.as_str()]);
    for bad in bad {
        for path in [
            "/queries/run",
            "/spec/queries",
            "/spec/packs",
            "/spec/labels",
            "/spec/teams",
        ] {
            let reply = server.say(TOKEN, Method::POST, path, bad).await;
            assert_eq!(reply.status, 400, "{path}");
            assert_eq!(
                reply.json()["errors"][0]["reason"],
                "json decoder error",
                "{path}"
            );
        }
    }
    let array = r#"{"query": "select 1", "selected": [[1]]}"#;
    assert_eq!(
        server
            .say(TOKEN, Method::POST, "/queries/run", array)
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn content_types_do_not_matter_and_encodings_do() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let bearer = format!("Bearer {TOKEN}");
    let path = "/api/v1/fleet/queries/run";
    let body = r#"{"query": "select 1", "selected": {"hosts": [1]}}"#;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "nonsense",
        "",
    ] {
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        let reply = server.send(Method::POST, path, &headers, body).await;
        assert_eq!(reply.status, 200, "{kind:?}");
    }
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-encoding", "br"),
    ];
    let reply = server.send(Method::POST, path, &headers, body).await;
    assert_eq!(reply.status, 415);
}

#[tokio::test]
async fn bodies_beyond_the_bound_are_refused_and_strangers_have_less() {
    let server = Server::start().await;
    let large = format!(r#"{{"query": "{}"}}"#, "x".repeat(9 * 1024 * 1024));
    let reply = server
        .say(TOKEN, Method::POST, "/queries/run", &large)
        .await;
    assert_eq!(reply.status, 413);
    let login = format!(
        r#"{{"email": "{}", "password": "x"}}"#,
        "x".repeat(100 * 1024)
    );
    let reply = server
        .send(Method::POST, "/api/v1/fleet/login", &[], login)
        .await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json()["message"], "Request Entity Too Large");
}

#[tokio::test]
async fn numbers_that_name_nothing_are_not_found_and_what_is_no_number_is_a_bad_request() {
    let server = Server::start().await;
    for path in [
        "/hosts",
        "/queries",
        "/labels",
        "/teams",
        "/users",
        "/campaigns",
    ] {
        for id in [
            "0",
            "99",
            "4294967296",
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            let (status, said) = server
                .call(Method::GET, &format!("{path}/{id}"), NONE)
                .await;
            assert_eq!(
                (status, &said["message"]),
                (404, &json!("Resource Not Found")),
                "{path}/{id}"
            );
        }
        for id in ["-1", "x", "1.5", "%00", "1%20", "%D9%A3"] {
            let (status, said) = server
                .call(Method::GET, &format!("{path}/{id}"), NONE)
                .await;
            assert_eq!(
                (status, &said["message"]),
                (400, &json!("Bad request")),
                "{path}/{id}"
            );
        }
    }
    let text = server.call(Method::GET, "/hosts/99", NONE).await.1["errors"].clone();
    assert_eq!(
        text,
        errors("base", "Host 99 was not found in the datastore")
    );
}

#[tokio::test]
async fn pages_are_checked() {
    let server = Server::start().await;
    let paths = [
        "/hosts",
        "/labels",
        "/queries",
        "/teams",
        "/users",
        "/activities",
        "/campaigns",
        "/packs",
    ];
    for path in paths {
        for bad in [
            "page=-1",
            "page=x",
            "per_page=-5",
            "per_page=1.5",
            "per_page=10001",
            "page=18446744073709551616",
        ] {
            let (status, said) = server
                .call(Method::GET, &format!("{path}?{bad}"), NONE)
                .await;
            assert_eq!(status, 400, "{path}?{bad}: {said}");
        }
        let far = format!("{path}?page=18446744073709551615&per_page=10000");
        server.get(&far).await;
        server.get(&format!("{path}?page=&per_page=0")).await;
    }
    for path in [
        "/hosts", "/labels", "/queries", "/teams", "/users", "/packs",
    ] {
        for bad in ["order_key=nonsense", "order_key=id&order_direction=up"] {
            let (status, _) = server
                .call(Method::GET, &format!("{path}?{bad}"), NONE)
                .await;
            assert_eq!(status, 400, "{path}?{bad}");
        }
        server
            .get(&format!("{path}?order_key=id&order_direction=desc"))
            .await;
    }
}

#[tokio::test]
async fn the_documents_are_served_to_everybody_and_hang_together() {
    let server = Server::start().await;
    let openapi = server.openapi().await;
    assert_eq!(openapi["openapi"], "3.1.0");
    let mut ids = std::collections::HashSet::new();
    for (path, item) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                ids.insert(operation["operationId"].clone()),
                "{method} {path}"
            );
            let path_parameters = operation["parameters"].as_array().unwrap().iter();
            let in_path = path_parameters.filter(|each| each["in"] == "path").count();
            assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
        }
    }
    assert!(ids.len() >= 70, "{} operations", ids.len());
    let page = server.send(Method::GET, "/api/docs", &[], "").await;
    assert!(page.text().contains("/queries/run_by_identifiers"));
    assert!(!page.text().contains("<script"));
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    assert_eq!(
        server
            .send(Method::GET, "/api/docs.css", &[], "")
            .await
            .status,
        200
    );
    let viewer = server
        .send(Method::GET, "/api/schema/viewer.json", &[], "")
        .await
        .json();
    assert!(viewer["$defs"]["select_campaign"].is_object());
    assert_eq!(
        server.send(Method::POST, "/api/docs", &[], "").await.status,
        405
    );
}
