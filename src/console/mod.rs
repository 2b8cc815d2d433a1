//! The console's files, baked into the binary and served at `/` with a strict content security policy.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;

/// The console's scripts, in the order in which its page loads them.
const SCRIPTS: [&str; 4] = ["answers.js", "links.js", "stream.js", "console.js"];

/// Besides the scripts, styles, pictures and connections from here only; nobody may frame the console.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; script-src";

/// The page whose scripts are named by their hashes.
const PAGE: &str = "index.html";

#[derive(RustEmbed)]
#[folder = "static/"]
struct Assets;

/// GET and HEAD for the files under `static/`; `/` is `index.html`. Rejects what is not there.
#[must_use]
pub fn routes() -> BoxedFilter<(Response,)> {
    warp::path::full()
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and_then(async |path: FullPath, method: Method, headers: HeaderMap| {
            let name = match path.as_str().trim_start_matches('/') {
                "" => "index.html",
                name => name,
            };
            match content(name) {
                Some(content) => Ok(answer(name, content, &method, &headers)),
                None => Err(warp::reject::not_found()),
            }
        })
        .boxed()
}

/// A file as it is sent.
fn content(name: &str) -> Option<Cow<'static, [u8]>> {
    let file = Assets::get(name)?;
    if name != PAGE {
        return Some(file.data);
    }
    let mut page = String::from_utf8_lossy(&file.data).into_owned();
    for script in SCRIPTS {
        let from = format!("src=\"{script}\"");
        let to = format!("{from} integrity=\"{}\"", hash(script));
        page = page.replace(&from, &to);
    }
    Some(page.into_bytes().into())
}

/// A file's hash as pages and policies write it.
fn hash(name: &str) -> String {
    let hash = Assets::get(name).map(|file| file.metadata.sha256_hash());
    let hash = STANDARD.encode(hash.unwrap_or_default());
    format!("sha256-{hash}")
}

/// Only the console's own scripts are scripts, whatever else this origin serves: a JSONP answer is none.
fn policy() -> String {
    let mut policy = POLICY.to_owned();
    for script in SCRIPTS {
        // Writing to a string cannot fail.
        let _ = write!(policy, " '{}'", hash(script));
    }
    policy
}

fn answer(
    name: &str,
    content: Cow<'static, [u8]>,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let tag = Sha256::digest(&content);
    let tag: String = tag[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let (status, body) = match *method {
        Method::GET if known => (StatusCode::NOT_MODIFIED, Vec::new()),
        Method::GET => (StatusCode::OK, content.into_owned()),
        Method::HEAD => (StatusCode::OK, Vec::new()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, Vec::new()),
    };
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(content_type(name)),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(policy) = HeaderValue::try_from(policy()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    // Pages that have opened this one, or that it opens, get no hold of it.
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_console_is_there_and_has_a_type() {
        for name in [
            "index.html",
            "console.js",
            "stream.js",
            "links.js",
            "answers.js",
            "console.css",
            "icon.svg",
        ] {
            assert!(Assets::get(name).is_some(), "{name}");
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
    }

    #[tokio::test]
    async fn the_policy_names_the_scripts_that_the_page_loads_and_no_others() {
        let page = warp::test::request().path("/").reply(&routes()).await;
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        let scripts = policy.split_once("script-src ").unwrap().1;
        let body = std::str::from_utf8(page.body()).unwrap();
        let loaded: Vec<&str> = body
            .lines()
            .filter_map(|line| line.trim().strip_prefix("<script src="))
            .collect();
        assert_eq!(loaded.len(), SCRIPTS.len());
        for (line, name) in loaded.iter().zip(SCRIPTS) {
            let script = warp::test::request().path(&format!("/{name}"));
            let script = script.reply(&routes()).await;
            let hash = STANDARD.encode(Sha256::digest(script.body()));
            assert_eq!(
                *line,
                format!("\"{name}\" integrity=\"sha256-{hash}\" defer></script>")
            );
            assert!(scripts.contains(&format!("'sha256-{hash}'")), "{name}");
        }
        let sources: Vec<&str> = scripts.split(' ').collect();
        assert_eq!(sources.len(), SCRIPTS.len(), "{scripts}");
        assert!(!policy.contains("unsafe") && !policy.contains("ws:"));
    }

    #[tokio::test]
    async fn a_known_page_is_not_sent_again_and_an_unknown_one_is_left_to_others() {
        let routes = routes();
        let first = warp::test::request().path("/").reply(&routes).await;
        assert_eq!(first.status(), 200);
        assert!(
            first.headers()["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
        );
        let again = warp::test::request()
            .path("/")
            .header("if-none-match", &first.headers()["etag"]);
        let again = again.reply(&routes).await;
        assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
        assert_eq!(
            warp::test::request()
                .path("/../Cargo.toml")
                .reply(&routes)
                .await
                .status(),
            404
        );
        assert_eq!(
            warp::test::request()
                .method("POST")
                .path("/")
                .reply(&routes)
                .await
                .status(),
            405
        );
    }
}
