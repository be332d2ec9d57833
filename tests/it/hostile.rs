//! Bad input, each kind with its documented refusal. Nothing of it may cost much memory, and the
//! server answers good requests before, between and after.

use std::net::SocketAddr;

use lepton_testkit::pictures;
use serde_json::json;

use crate::support::{
    client::{Connection, exchange, get, multipart, post, post_with},
    process::Lepton,
};

const VISION: &str = "/v1/vision/classify";
const TEXT: &str = "/v1/text/sentiment";

/// A bad request and what it is answered with.
struct Case {
    name: String,
    request: Vec<u8>,
    status: u16,
    problem: &'static str,
    /// What the detail has to say.
    says: &'static str,
}

fn case(
    name: impl Into<String>,
    request: Vec<u8>,
    status: u16,
    problem: &'static str,
    says: &'static str,
) -> Case {
    Case { name: name.into(), request, status, problem, says }
}

fn images() -> Vec<Case> {
    let jpeg = pictures::jpeg(&pictures::draw(320, 240));
    let raw = |name: &str, body: &[u8], status, problem, says| {
        case(name, post(VISION, "application/octet-stream", body), status, problem, says)
    };
    let mut cases = vec![
        raw("an empty image", b"", 422, "invalid-input", "empty"),
        raw("a text as an image", b"just words, no image at all", 415, "unsupported-media-type", "JPEG"),
        raw("the head of a GIF", b"GIF89a\x01\x00\x01\x00\x80\x00\x00", 400, "malformed", "GIF"),
        raw("the head of a BMP", b"BM\x36\x00\x00\x00\x00\x00\x00\x00", 400, "malformed", "BMP"),
        raw("the head of a TIFF", b"II*\x00\x08\x00\x00\x00", 400, "malformed", "TIFF"),
        raw("a HEIC", b"\0\0\0\x20ftypheic\0\0\0\0", 415, "unsupported-media-type", "heif-convert"),
        raw("a PDF", b"%PDF-1.7\n%\xe2\xe3", 415, "unsupported-media-type", "PDF"),
        raw("an SVG", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", 415, "unsupported-media-type", "SVG"),
        raw("a PNG of 30,000 x 30,000", &pictures::png_header(30_000, 30_000), 413, "too-large", "30000"),
        raw("a PNG that announces 2^31 columns", &pictures::png_header(1 << 31, 1), 413, "too-large", ""),
        raw("a PNG of no columns", &pictures::png_header(0, 5), 400, "malformed", ""),
        raw("a JPEG of 65,000 x 65,000", &pictures::jpeg_header(65_000, 65_000), 413, "too-large", "65000"),
        raw("a WebP of 16,000 x 16,000", &pictures::webp_header(16_000, 16_000), 413, "too-large", "16000"),
        raw("a PNG signature alone", b"\x89PNG\r\n\x1a\n", 400, "malformed", "PNG"),
        raw(
            "a JPEG of zeros",
            &[b"\xff\xd8\xff\xe0".as_slice(), &[0; 1000]].concat(),
            400,
            "malformed",
            "JPEG",
        ),
    ];
    let whole = [
        ("JPEG", jpeg.clone()),
        ("PNG", pictures::png(&pictures::draw(120, 90))),
        ("WebP", pictures::webp(&pictures::draw(120, 90))),
    ];
    for (format, bytes) in whole {
        for tenth in 1..10 {
            let cut = &bytes[..bytes.len() * tenth / 10];
            cases.push(raw(&format!("a {format} cut at {tenth} tenths"), cut, 400, "malformed", format));
        }
    }
    cases
}

fn forms() -> Vec<Case> {
    let (kind, form) = multipart(&[("image", b"GIF89a")]);
    let (_, unknown) = multipart(&[("file", b"x")]);
    let (_, none) = multipart(&[]);
    let many: Vec<(&str, &[u8])> = (0..10_000).map(|_| ("image", b"x".as_slice())).collect();
    let (_, many) = multipart(&many);
    let mut cut = form.clone();
    cut.truncate(form.len() - 10);
    let form = |name: &str, kind: &str, body: &[u8], status, problem, says| {
        case(name, post(VISION, kind, body), status, problem, says)
    };
    let json = |name: &str, body: &[u8], status, problem, says| {
        case(name, post(VISION, "application/json", body), status, problem, says)
    };
    vec![
        form(
            "a part that is no image",
            &kind,
            &multipart(&[("image", b"%PDF-1.7")]).1,
            415,
            "unsupported-media-type",
            "PDF",
        ),
        form("a part of unknown name", &kind, &unknown, 400, "malformed", "allowed is `image`"),
        form("a form without parts", &kind, &none, 422, "invalid-input", "image"),
        form("10,000 parts", &kind, &many, 413, "too-large", ""),
        form("a form cut short", &kind, &cut, 400, "malformed", ""),
        form("a wrong boundary", "multipart/form-data; boundary=other", &unknown, 400, "malformed", ""),
        form("no boundary", "multipart/form-data", &unknown, 400, "malformed", "boundary"),
        form("a type that is not served", "video/mp4", b"x", 415, "unsupported-media-type", "video/mp4"),
        json("base64 of nothing", br#"{"image": ""}"#, 422, "invalid-input", "empty"),
        json("broken base64", br#"{"image": "@@@@"}"#, 400, "malformed", "base64"),
        json(
            "base64 of another format",
            br#"{"image": "JVBERi0xLjc="}"#,
            415,
            "unsupported-media-type",
            "PDF",
        ),
        json("no images", br#"{"images": []}"#, 422, "invalid-input", "images"),
        json("a number for an image", br#"{"image": 7}"#, 422, "invalid-input", "is a number"),
        json("an unknown field", br#"{"picture": "x"}"#, 422, "invalid-input", "picture"),
        case("a form for a text", post(TEXT, &kind, b"x"), 415, "unsupported-media-type", ""),
    ]
}

fn texts() -> Vec<Case> {
    let json = |name: &str, body: &[u8], status, problem, says| {
        case(name, post(TEXT, "application/json", body), status, problem, says)
    };
    let plain = |name: &str, body: &[u8], status, problem, says| {
        case(name, post(TEXT, "text/plain", body), status, problem, says)
    };
    let many = json!({ "texts": vec!["a"; 100_000] }).to_string();
    let long = json!({ "text": "a".repeat(2 << 20) }).to_string();
    vec![
        json("no body", b"", 422, "invalid-input", "empty"),
        json("an empty object", b"{}", 422, "invalid-input", "text"),
        json("an empty text", br#"{"text": ""}"#, 422, "invalid-input", "text"),
        json("a text of blanks", br#"{"text": " \n\t "}"#, 422, "invalid-input", "text"),
        json("one empty text among others", br#"{"texts": ["fine", ""]}"#, 422, "invalid-input", "texts[1]"),
        json("no texts", br#"{"texts": []}"#, 422, "invalid-input", "texts"),
        json("a number for a text", br#"{"text": 5}"#, 422, "invalid-input", "is a number"),
        json("NaN", br#"{"text": NaN}"#, 400, "malformed", "JSON"),
        json("JSON cut short", br#"{"text": "a"#, 400, "malformed", "JSON"),
        json("JSON with something behind it", br#"{"text": "a"} x"#, 400, "malformed", "something follows"),
        json("JSON 200,000 deep", "[".repeat(200_000).as_bytes(), 400, "malformed", "deep"),
        json("objects 200,000 deep", r#"{"text":"#.repeat(200_000).as_bytes(), 400, "malformed", "deep"),
        json("invalid UTF-8 in JSON", b"{\"text\": \"\xff\xfe\"}", 400, "malformed", ""),
        json("a lone surrogate", br#"{"text": "\ud800"}"#, 400, "malformed", ""),
        json("100,000 texts", many.as_bytes(), 413, "too-large", "texts"),
        json("a text of 2 MiB", long.as_bytes(), 413, "too-large", ""),
        json("a field given twice", br#"{"text": "a", "text": "b"}"#, 422, "invalid-input", "twice"),
        plain("invalid UTF-8", b"caf\xe9", 400, "malformed", "UTF-8"),
        plain("an empty plain text", b"", 422, "invalid-input", "empty"),
        case(
            "another charset",
            post(TEXT, "text/plain; charset=utf-16", b"a"),
            415,
            "unsupported-media-type",
            "UTF-8",
        ),
        case(
            "a picture for a text",
            post(TEXT, "image/png", b"a"),
            415,
            "unsupported-media-type",
            "image/png",
        ),
    ]
}

fn requests() -> Vec<Case> {
    let body = br#"{"text": "fine"}"#;
    let with = |name: &str, header: (&str, &str), status, problem, says| {
        case(
            name,
            post_with(TEXT, &[("content-type", "application/json"), header], body),
            status,
            problem,
            says,
        )
    };
    let to = |name: &str, path: &str, status, problem, says| {
        case(name, post(path, "application/json", body), status, problem, says)
    };
    let chunked = b"POST /v1/text/sentiment HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let mut endless = chunked[..chunked.len() - 4].to_vec();
    for _ in 0..17 * 16 {
        endless.extend_from_slice(b"10000\r\n");
        endless.extend(std::iter::repeat_n(b'a', 0x10000));
        endless.extend_from_slice(b"\r\n");
    }
    let huge = b"POST /v1/text/sentiment HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\ncontent-length: 99999999999\r\n\r\n";
    vec![
        case("a declared body of 100 GB", huge.to_vec(), 413, "too-large", "99999999999"),
        case("a chunked body without end", endless, 413, "too-large", ""),
        case("a broken chunk", chunked.to_vec(), 400, "malformed", ""),
        with("a compressed body", ("content-encoding", "gzip"), 415, "unsupported-media-type", "gzip"),
        with("a deadline of zero", ("x-deadline-ms", "0"), 400, "malformed", "x-deadline-ms"),
        with("a deadline in words", ("x-deadline-ms", "soon"), 400, "malformed", "soon"),
        with("a deadline beyond the limit", ("x-deadline-ms", "99999999"), 400, "malformed", "x-deadline-ms"),
        to("an unknown model", "/v1/text/sentiment?model=none", 404, "model-not-found", "`none`"),
        to("a model of another task", "/v1/text/sentiment?model=face", 422, "invalid-input", "face"),
        to("a path for a model", "/v1/text/sentiment?model=../../etc/passwd", 404, "model-not-found", ""),
        to("an unknown parameter", "/v1/text/sentiment?modle=face", 400, "malformed", "modle"),
        to("a broken parameter", "/v1/vision/classify?top_k=-1", 400, "malformed", "top_k"),
        to("an unknown path", "/v1/sentiment", 404, "not-found", "GET / lists"),
        to("an unknown model in the path", "/v1/models/none/predict", 404, "model-not-found", "`none`"),
        case("a wrong method", get(TEXT), 405, "method-not-allowed", "use POST"),
    ]
}

/// Asks both models something sound.
fn assert_serves(address: SocketAddr) {
    assert_eq!(exchange(address, &get("/readyz")).status, 200);
    let text = exchange(address, &post(TEXT, "application/json", br#"{"text": "What a lovely day!"}"#));
    assert_eq!((text.status, text.json()["results"][0]["label"].as_str()), (200, Some("positive")));
    let image = pictures::jpeg(&pictures::draw(64, 48));
    let image = exchange(address, &post(VISION, "image/jpeg", &image));
    assert_eq!((image.status, image.json()["images"][0]["width"].as_u64()), (200, Some(64)));
}

#[test]
fn every_kind_of_bad_input_has_its_refusal_and_none_costs_much_memory() {
    let server = Lepton::start();
    assert_serves(server.address);
    let before = server.settled_peak_kib();
    let mut wrong = Vec::new();
    for case in [images(), forms(), texts(), requests()].into_iter().flatten() {
        let Ok(response) = Connection::open(server.address).exchange(&case.request) else {
            wrong.push(format!("{}: no answer", case.name));
            continue;
        };
        let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
        let dressed = response.header("content-type") == Some("application/problem+json")
            && response.header("x-request-id").is_some();
        let leaks =
            detail.contains(env!("CARGO_MANIFEST_DIR")) || detail.contains("0x") || detail.contains(".rs:");
        if (response.status, response.problem().as_str()) != (case.status, case.problem)
            || !detail.contains(case.says)
            || !dressed
            || leaks
        {
            wrong.push(format!("{}: {} {}", case.name, response.status, response.text()));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_serves(server.address);
    let grown = server.memory_kib("VmHWM").saturating_sub(before) / 1024;
    assert!(grown < 96, "bad input took {grown} MiB more than good input does");
}

#[test]
fn what_inflates_to_a_gigabyte_in_a_png_costs_nothing() {
    let server = Lepton::start();
    assert_serves(server.address);
    let before = server.settled_peak_kib();
    let picture = pictures::draw(64, 48);
    for (name, png) in [
        ("a note", pictures::inflating_png(&picture, b"zTXt")),
        ("a colour profile", pictures::inflating_png(&picture, b"iCCP")),
        ("rows beyond the picture", pictures::data_bomb_png()),
    ] {
        let response = exchange(server.address, &post(VISION, "image/png", &png));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        let grown = server.memory_kib("VmHWM").saturating_sub(before) / 1024;
        assert!(grown < 96, "{name} took {grown} MiB");
    }
}

#[test]
fn a_slow_sender_is_answered_and_cut_off() {
    let server =
        Lepton::start_with(&[("LEPTON_SERVER_BODY_TIMEOUT", "1s"), ("LEPTON_SERVER_HEADER_TIMEOUT", "1s")]);
    let mut slow_body = Connection::open(server.address);
    slow_body
        .send(b"POST /v1/text/sentiment HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n{\"te")
        .unwrap();
    let response = slow_body.receive().unwrap();
    assert_eq!((response.status, response.problem().as_str()), (408, "request-timeout"));
    assert!(slow_body.receive().is_err(), "the connection is closed after it");
    let mut slow_head = Connection::open(server.address);
    slow_head.send(b"POST /v1/text/sentiment HTTP/1.1\r\nho").unwrap();
    assert!(slow_head.receive().is_err(), "a head that does not come is cut off");
    assert_serves(server.address);
}

#[test]
fn senders_who_leave_half_way_leave_nothing_behind() {
    let server = Lepton::start();
    let jpeg = pictures::jpeg(&pictures::draw(640, 480));
    let request = post(VISION, "image/jpeg", &jpeg);
    for part in 1..=40 {
        let mut connection = Connection::open(server.address);
        connection.send(&request[..request.len() * part / 40]).unwrap();
        drop(connection);
    }
    assert_serves(server.address);
    // The room of those who left comes back as the server notices; it does so by itself.
    let idle = (0..10_000).any(|_| {
        let metrics = exchange(server.address, &get("/metrics"));
        let gauge = |name: &str| {
            let lines = metrics.text().lines().filter(|line| line.starts_with(name));
            let values: Vec<i64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
            assert!(!values.is_empty(), "there is no {name}");
            values.iter().sum::<i64>()
        };
        // This very request is in flight.
        gauge("lepton_http_requests_in_flight") <= 1 && gauge("lepton_queued_rows") == 0
    });
    assert!(idle, "someone who left is still waited for");
}

#[test]
fn a_header_of_any_size_is_refused_or_served() {
    let server = Lepton::start();
    for length in [1_000, 100_000, 10_000_000] {
        let mut connection = Connection::open(server.address);
        let head = format!("GET /healthz HTTP/1.1\r\nhost: t\r\nx-long: {}\r\n\r\n", "a".repeat(length));
        let _cut_off = connection.send(head.as_bytes());
        if let Ok(response) = connection.receive() {
            assert!(matches!(response.status, 200 | 431), "{}", response.status);
        }
    }
    let mut connection = Connection::open(server.address);
    let _cut_off = connection.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00].repeat(1000));
    assert!(!connection.receive().is_ok_and(|r| r.status < 400), "a TLS hello is no request");
    assert_serves(server.address);
}
