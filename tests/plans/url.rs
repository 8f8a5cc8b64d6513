//! A URL.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Shop, until};

/// What the server answers with, and how it was asked.
#[derive(Default)]
struct Tenants {
    body: String,
    tag: &'static str,
    status: u16,
    /// Bytes that it announces and does not send.
    missing: usize,
    unchanged: usize,
}

type Shared = Arc<Mutex<Tenants>>;

/// Answers one request and closes the connection.
async fn answer(mut stream: TcpStream, tenants: Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let answer = {
        let mut tenants = tenants.lock().expect("no panic");
        let Tenants {
            body,
            tag,
            status,
            missing,
            ..
        } = &*tenants;
        let is_known = head.contains(&format!("if-none-match: {tag}\r\n")) && *status == 200;
        let length = body.len() + missing;
        let answer = match is_known {
            true => "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n".to_owned(),
            false => {
                let tag = match *tag {
                    "" => String::new(),
                    tag => format!("etag: {tag}\r\n"),
                };
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{tag}content-length: {length}\r\n\r\n{body}")
            }
        };
        tenants.unchanged += usize::from(is_known);
        answer
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[tokio::test]
async fn a_url_is_asked_at_intervals() {
    let shared = Shared::default();
    let set = |body: &str, tag, status, missing| {
        let mut tenants = shared.lock().expect("no panic");
        (tenants.body, tenants.tag, tenants.status, tenants.missing) = (body.to_owned(), tag, status, missing);
    };
    set("acme,pro\n", "\"1\"", 200, 0);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let tenants = Arc::clone(&shared);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&tenants)));
        }
    });

    let source = format!("{{ http: {{ url: \"http://127.0.0.1:{port}/tenants\", every: 1s }} }}");
    let shop = Shop::start(&source, &[]);
    shop.until_plan("acme", "pro").await;
    until("asked again", async || shared.lock().expect("no panic").unchanged > 1).await;
    assert_eq!(shop.explain("acme").await["plan"]["name"], "pro");
    set("acme,all\n", "\"2\"", 200, 0);
    shop.until_plan("acme", "all").await;

    for (what, body, status, missing, said) in [
        ("an error", "acme,free\n", 503, 0, "it answered 503"),
        ("moved", "acme,free\n", 302, 0, "it answered 302"),
        (
            "wrong",
            "acme,free\nacme,free\n",
            200,
            0,
            "/tenants:2:1: `value` \"acme\"",
        ),
        ("cut", "acme,free\nother,", 200, 4, "the answer breaks off"),
        ("cut at a line", "acme,free\n", 200, 10, "the answer breaks off"),
    ] {
        let errors = shop.reads("error").await;
        set(body, "\"3\"", status, missing);
        until(what, async || shop.reads("error").await > errors).await;
        shop.until_stale(true).await;
        assert_eq!(shop.explain("acme").await["plan"]["name"], "all", "{what}");
        shop.until_logged(said).await;
    }
    set("acme,pro\n", "\"4\"", 200, 0);
    shop.until_plan("acme", "pro").await;
    // Without ETags: what is the same is not told as new.
    set("acme,all\n", "", 200, 0);
    shop.until_plan("acme", "all").await;
    let said = shop.server.process.log().matches("plans in force").count();
    let reads = shop.reads("success").await;
    until("read again", async || shop.reads("success").await > reads + 1.0).await;
    assert_eq!(shop.server.process.log().matches("plans in force").count(), said);
    shop.until_stale(false).await;
}
