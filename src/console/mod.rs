//! The console's files, baked into the binary and served at `/` with a strict content security policy.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;

/// Scripts, styles and connections from here only; nobody may frame the console.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self' ws: wss:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

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
            match Assets::get(name) {
                Some(file) => Ok(answer(name, &file, &method, &headers)),
                None => Err(warp::reject::not_found()),
            }
        })
        .boxed()
}

fn answer(name: &str, file: &EmbeddedFile, method: &Method, headers: &HeaderMap) -> Response {
    let tag = file.metadata.sha256_hash();
    let tag: String = tag[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let (status, body) = match *method {
        Method::GET if known => (StatusCode::NOT_MODIFIED, Vec::new()),
        Method::GET => (StatusCode::OK, file.data.to_vec()),
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
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
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
            "answers.js",
            "console.css",
            "icon.svg",
        ] {
            assert!(Assets::get(name).is_some(), "{name}");
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
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
