//! Requests as real clients write them, sound and broken, through the real binary: docs/requests.md.

use std::{fs, path::Path};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use lepton_testkit::pictures;
use serde_json::{Value, json};

use crate::support::{
    client::{Response, exchange, get, post, post_with},
    process::Lepton,
};

const VISION: &str = "/v1/vision/classify?model=face";
const TEXT: &str = "/v1/text/sentiment";

fn images(server: &Lepton, content_type: &str, body: &[u8]) -> Value {
    let response = exchange(server.address, &post(VISION, content_type, body));
    assert_eq!(response.status, 200, "{content_type}: {}", response.text());
    response.json()["images"].clone()
}

/// `text` in lines of that many characters.
fn in_lines(text: &str, length: usize, line_break: &str) -> String {
    let lines: Vec<&str> =
        (0..text.len()).step_by(length).map(|at| &text[at..text.len().min(at + length)]).collect();
    lines.join(line_break) + line_break
}

#[test]
fn a_picture_is_answered_alike_whatever_its_client_calls_it_and_however_it_is_written() {
    let server = Lepton::start();
    let jpeg = pictures::jpeg(&pictures::smooth(120, 90));
    let want = images(&server, "image/jpeg", &jpeg);
    for name in [
        "image/jpg",
        "image/pjpeg",
        "image/x-png",
        "image/png",
        "image/gif",
        "image/bmp",
        "image/x-ms-bmp",
        "image/tiff",
        "image/*",
        "binary/octet-stream",
        "application/octet-stream",
        "",
    ] {
        assert_eq!(images(&server, name, &jpeg), want, "{name}");
    }
    for engine in [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD] {
        let text = engine.encode(&jpeg);
        for line_break in ["", "\n", "\r\n"] {
            let text = in_lines(&text, 76, line_break);
            for text in [text.clone(), format!("data:image/jpeg;base64,{text}")] {
                let body = json!({ "image": text }).to_string();
                assert_eq!(images(&server, "application/json", body.as_bytes()), want);
                let marked = [b"\xef\xbb\xbf", body.as_bytes()].concat();
                assert_eq!(images(&server, "application/json; charset=iso-8859-1", &marked), want);
                // As a shell script writes it: no escapes.
                let body = format!("{{\"images\": [\"{text}\"]}}");
                assert_eq!(images(&server, "text/json", body.as_bytes()), want);
            }
        }
    }
    let heads = [
        "Content-Disposition: form-data; name=\"image\"; filename=\"my \"best\" face.jpg\"\r\nContent-Type: image/jpeg",
        "Content-Disposition: form-data; name=\"image\"; filename=\"C:\\pictures\\new.jpg\"",
        "Content-Disposition: form-data; name=\"image\"; filename=\"a\\\"b.jpg\"",
        "Content-Disposition: form-data;\r\n name=\"image\";\r\n\tfilename=\"a.jpg\"",
        "Content-Type: image/jpeg\r\nContent-Disposition: form-data; name=image; filename=a.jpg; filename*=utf-8''a.jpg",
        "content-disposition: form-data; name=\"images[]\"",
    ];
    for head in heads {
        let mut body = format!("--b.1\r\n{head}\r\n\r\n").into_bytes();
        body.extend_from_slice(&jpeg);
        body.extend_from_slice(b"\r\n--b.1--");
        assert_eq!(images(&server, "multipart/form-data; boundary=\"b.1\"", &body), want, "{head}");
    }
}

/// What Rust writes of its own values, and no caller should read.
const OF_RUST: [&str; 12] =
    ["Error(", "Some(", "None)", "Ok(", "Err(", "::", " { ", "Kind", "\\\"", "unwrap", "panicked", ".rs:"];

/// Fails where a refusal shows Rust's own text.
fn speaks_plainly(what: &str, response: &Response) {
    assert_ne!(response.status, 500, "{what}: {}", response.text());
    if response.status < 400 {
        return;
    }
    let problem = response.json();
    let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
    // What is allowed is shown as JSON.
    let detail = detail.split("; expected {").next().unwrap_or_default().to_owned();
    for text in OF_RUST {
        assert!(!detail.contains(text), "{what}: {detail}");
    }
    assert!(detail.len() > 10, "{what}: {detail}");
}

#[test]
fn no_refusal_of_a_broken_request_shows_text_of_rust() {
    let server = Lepton::start();
    let picture = pictures::draw(60, 40);
    let whole = [pictures::jpeg(&picture), pictures::png(&picture), pictures::webp(&picture)];
    let mut random = fastrand::Rng::with_seed(22);
    let mut below = |n: usize| random.usize(..n);
    let ask = |what: &str, path: &str, content_type: &str, body: &[u8]| {
        speaks_plainly(what, &exchange(server.address, &post(path, content_type, body)));
    };
    for (format, bytes) in whole.iter().enumerate() {
        for round in 0..120 {
            let mut broken = bytes.clone();
            for _ in 0..=below(3) {
                let at = below(broken.len());
                broken[at] = below(256) as u8;
            }
            // Heads are where most of the errors are.
            let at = below(60);
            broken[at] = below(256) as u8;
            if round % 3 == 0 {
                broken.truncate(below(bytes.len()));
            }
            ask(&format!("picture {format}, round {round}"), VISION, "image/jpeg", &broken);
        }
    }
    let bodies: [&[u8]; 14] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\"a\"",
        b"{\"image\"}",
        b"{\"image\": {}}",
        b"{\"image\": \"%%\"}",
        b"{\"images\": [1]}",
        b"{\"text\": \"\\ud800\"}",
        b"\xff\xfe{\0",
        b"{\"text\": \"a\", \"text\": \"b\"}",
        b"{\"a\": {\"b\": [[[1]]]}}",
        b"\xf0\x9f",
    ];
    for body in bodies {
        for content_type in [
            "application/json",
            "text/plain",
            "multipart/form-data; boundary=X",
            "image/png",
            "a/b; c",
            ";;",
            "\"",
            "multipart/form-data",
        ] {
            for path in [VISION, TEXT, "/v1/models/face/predict", "/v1/models/sentiment/predict"] {
                ask(&format!("{path} {content_type} {body:?}"), path, content_type, body);
            }
        }
    }
    for query in [
        "top_k=a",
        "top_k=",
        "top_k=-1",
        "side=x",
        "side=99999999999",
        "side=320&side=320",
        "%zz=%",
        "model=",
        "model=%00",
        "detector=%ff",
        "class=x",
        "balance=1",
        "=&=",
    ] {
        for path in
            ["/v1/vision/classify", TEXT, "/v1/models/face/predict", "/v1/models/face-detector/predict"]
        {
            ask(query, &format!("{path}?{query}"), "text/plain", b"x");
        }
        speaks_plainly(query, &exchange(server.address, &get(&format!("/v1/models?{query}"))));
    }
    for path in [
        "/%ff",
        "/v1/models/%ff",
        "/v1/models/%ff/predict",
        "/problems/%ff",
        "/v1/models/a%2fb",
        "/problems/",
    ] {
        speaks_plainly(path, &exchange(server.address, &get(path)));
        ask(path, path, "text/plain", b"x");
    }
    for (name, value) in [
        ("x-deadline-ms", "soon"),
        ("x-class", "x"),
        ("x-balance", ""),
        ("content-encoding", "gzip"),
        ("x-deadline-ms", "1e9"),
    ] {
        let headers = [("content-type", "text/plain"), (name, value)];
        speaks_plainly(name, &exchange(server.address, &post_with(TEXT, &headers, b"x")));
    }
}

/// The fenced blocks of docs/requests.md in that language.
fn blocks(language: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/requests.md");
    let text = fs::read_to_string(file).unwrap_or_default();
    let opening = format!("```{language}\n");
    let found = text.split(&opening).skip(1);
    found.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_page_calls_as_the_documentation_shows() {
    let origins = "https://app.example.com, http://localhost:3000";
    let server = Lepton::start_with(&[("LEPTON_SERVER_CORS", origins)]);
    let toml = &blocks("toml")[0];
    let options = lepton::config::Options::from_toml("docs", toml).expect("a configuration");
    assert_eq!(options.server.cors.map(|cors| cors.to_string()).as_deref(), Some(origins));

    // The headers and the path of the documented command.
    let command = &blocks("sh")[0];
    let mut quoted = command.split('\'').skip(1).step_by(2).map(|header| format!("{header}\r\n"));
    let headers: String = quoted.by_ref().collect();
    let path = command.rsplit("8080").next().expect("an address").trim();
    let request = format!("OPTIONS {path} HTTP/1.1\r\nhost: test\r\n{headers}content-length: 0\r\n\r\n");
    let mut connection = crate::support::client::Connection::open(server.address);
    connection.send(request.as_bytes()).expect("sent");
    let preflight = connection.receive_without_body().expect("an answer");
    let shown = &blocks("http")[0];
    assert!(shown.starts_with(&format!("HTTP/1.1 {} ", preflight.status)), "{shown}");
    for line in shown.lines().skip(1) {
        let (name, value) = line.split_once(": ").expect("a header");
        assert_eq!(preflight.header(name), Some(value), "{name}");
    }

    // What the page sends then, and what it may read of the answer and of a refusal.
    assert!(blocks("html")[0].contains("/v1/vision/classify?top_k=1"));
    let jpeg = pictures::jpeg(&pictures::smooth(120, 90));
    let ask = |origin: &str, body: &[u8]| {
        let headers = [("origin", origin), ("content-type", "image/jpeg"), ("x-deadline-ms", "20000")];
        exchange(server.address, &post_with("/v1/vision/classify?top_k=1", &headers, body))
    };
    for (body, status) in [(jpeg.as_slice(), 200), (b"no picture at all", 415)] {
        let response = ask("https://app.example.com", body);
        assert_eq!(response.status, status, "{}", response.text());
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example.com"));
        assert!(
            response
                .header("access-control-expose-headers")
                .is_some_and(|names| names.contains("server-timing"))
        );
    }
    let other = ask("https://other.example", &jpeg);
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, None));
}
