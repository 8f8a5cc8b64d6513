//! The console: static files, in the binary. What they show comes from the API, which is guarded by itself.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::guard::strict;

/// Names, types and texts.
const FILES: [(&str, &str, &str); 13] = [
    ("", "text/html; charset=utf-8", include_str!("index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("app.js")),
    ("api.js", "text/javascript; charset=utf-8", include_str!("api.js")),
    ("dom.js", "text/javascript; charset=utf-8", include_str!("dom.js")),
    ("now.js", "text/javascript; charset=utf-8", include_str!("now.js")),
    ("key.js", "text/javascript; charset=utf-8", include_str!("key.js")),
    ("lookup.js", "text/javascript; charset=utf-8", include_str!("lookup.js")),
    ("reset.js", "text/javascript; charset=utf-8", include_str!("reset.js")),
    ("rules.js", "text/javascript; charset=utf-8", include_str!("rules.js")),
    (
        "replica.js",
        "text/javascript; charset=utf-8",
        include_str!("replica.js"),
    ),
    ("leases.js", "text/javascript; charset=utf-8", include_str!("leases.js")),
];

/// `/` and `/console` lead to `/console/`.
pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/console/") }))
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(|| async { file("") }))
        .route(
            "/console/{file}",
            get(|Path(name): Path<String>| async move { file(&name) }),
        )
        .layer(middleware::map_response(|mut response: Response| async move {
            strict(response.headers_mut());
            response
        }))
}

fn file(name: &str) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
        None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_is_small() {
        let bytes: usize = FILES.iter().map(|(.., text)| text.len()).sum();
        assert!(bytes <= 150 << 10, "{bytes} bytes");
    }
}
