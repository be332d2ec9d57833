//! HTTP/2 with prior knowledge, asked by hyper's client, and by h2's where a caller misbehaves.

use axum::http::{Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

type Sender = http2::SendRequest<Full<Bytes>>;

/// A caller, and the end of its connection.
async fn connect(served: &Served) -> (Sender, JoinHandle<hyper::Result<()>>) {
    connect_with(served, 1 << 20).await
}

/// One that takes so many bytes of each answer before it has read them.
async fn connect_with(served: &Served, window: u32) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(served.address).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://lepton{path}"))
        .body(Full::new(body.into()))
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn get_text(sender: &mut Sender, path: &str) -> (StatusCode, String) {
    let response = sender.send_request(request("GET", path, "")).await.unwrap();
    (response.status(), text(response).await)
}

#[tokio::test]
async fn every_route_is_answered_as_over_http_1() {
    let served = serve_routes(8).await;
    let (mut sender, _) = connect(&served).await;
    for (method, path, status, says) in [
        ("GET", "/", 200, "/v1/text/sentiment"),
        ("GET", "/healthz", 200, "alive"),
        ("GET", "/readyz", 200, "ready"),
        ("GET", "/metrics", 200, "lepton_http_requests"),
        ("GET", "/v1/models", 200, "models"),
        ("GET", "/v1/models/none", 404, "model-not-found"),
        ("GET", "/problems/overloaded", 200, "Retry-After"),
        ("POST", "/v1/text/sentiment", 404, "model-not-found"),
        ("POST", "/v1/vision/classify", 404, "model-not-found"),
        ("POST", "/v1/models/none/predict", 404, "model-not-found"),
        ("GET", "/v1/text/sentiment", 405, "use POST"),
        ("GET", "/nowhere", 404, "not-found"),
    ] {
        let response = sender.send_request(request(method, path, "")).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (status, Version::HTTP_2), "{path}");
        assert!(
            response.headers().contains_key("x-request-id") && !response.headers().contains_key("connection")
        );
        let body = text(response).await;
        assert!(body.contains(says), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_hundred_streams_are_served_at_once_and_the_next_after_them() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let finish = Arc::new(tokio::sync::Notify::new());
    let served = serve(held(tell, finish.clone()), LONG_TIMEOUTS, DRAIN).await;
    let (mut sender, _) = connect(&served).await;
    // The limit is known once the server has spoken.
    get_text(&mut sender, "/no").await;
    let asked: Vec<_> =
        (0..101).map(|_| tokio::spawn(sender.send_request(request("GET", "/held", "")))).collect();
    for _ in 0..100 {
        assert_eq!(told.recv().await, Some("asked"));
    }
    assert!(told.try_recv().is_err(), "the next waits for one of them");
    finish.notify_one();
    assert_eq!(told.recv().await, Some("dropped"));
    assert_eq!(told.recv().await, Some("asked"));
    for _ in 0..100 {
        finish.notify_one();
        assert_eq!(told.recv().await, Some("dropped"));
    }
    for response in asked {
        assert_eq!(text(response.await.unwrap().unwrap()).await, "finished");
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_and_the_others_do_not_wait_for_it() {
    let app = app().route("/long", get(async || "x".repeat(8 << 20)));
    let served = serve(app, Timeouts { write: Duration::from_millis(200), ..LONG_TIMEOUTS }, DRAIN).await;
    let (mut sender, _) = connect_with(&served, 20_000).await;
    let mut stalled = sender.send_request(request("GET", "/long", "")).await.unwrap().into_body();
    for _ in 0..20 {
        assert_eq!(get_text(&mut sender, "/fine").await.1, "fine");
        sleep(Duration::from_millis(30)).await;
    }
    let mut n_read = 0;
    let error = loop {
        match stalled.frame().await {
            Some(Ok(frame)) => n_read += frame.into_data().unwrap().len(),
            Some(Err(error)) => break error,
            None => panic!("the answer is whole"),
        }
    };
    assert!(n_read <= 20_000, "{n_read} bytes, then {error}");
    // The connection and its other streams are served on.
    assert_eq!(get_text(&mut sender, "/fine").await.1, "fine");
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_whole() {
    let long = "x".repeat(300_000);
    let answer = long.clone();
    let app = app().route("/long", get(async || answer));
    let served = serve(app, Timeouts { write: Duration::from_millis(800), ..LONG_TIMEOUTS }, DRAIN).await;
    let (mut sender, _) = connect_with(&served, 20_000).await;
    let mut body = sender.send_request(request("GET", "/long", "")).await.unwrap().into_body();
    let mut n_read = 0;
    while let Some(frame) = body.frame().await {
        n_read += frame.unwrap().into_data().unwrap().len();
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(n_read, long.len());
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_answered_before_it_is_whole() {
    let served = serve(app(), LONG_TIMEOUTS, DRAIN).await;
    let (mut sender, _) = connect(&served).await;
    let long = request("POST", "/refuse", vec![7; 4 << 20]);
    let response = sender.send_request(long).await.unwrap();
    assert_eq!(text(response).await, "refused");
    let read = sender.send_request(request("POST", "/read", vec![7; 4 << 20])).await.unwrap();
    assert_eq!(text(read).await, (4 << 20).to_string());
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_and_leaves_no_work() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let served = serve(held(tell, Arc::default()).merge(app()), LONG_TIMEOUTS, DRAIN).await;
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut n_sent = 0;
    while n_sent < 100_000 {
        let Ok(ready) = client.ready().await else { break };
        client = ready;
        let request = Request::get("http://lepton/held").body(()).unwrap();
        let Ok((_, mut stream)) = client.send_request(request, true) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        n_sent += 1;
        if n_sent % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(n_sent < 100_000, "nothing ended it");
    let _ended = connection.await.unwrap();
    let (mut n_asked, mut n_dropped) = (0, 0);
    while n_asked != n_dropped || n_asked == 0 {
        let Ok(told) = timeout(Duration::from_secs(5), told.recv()).await else { break };
        match told {
            Some("asked") => n_asked += 1,
            _ => n_dropped += 1,
        }
    }
    assert_eq!(n_asked, n_dropped);
    let (mut other, _) = connect(&served).await;
    assert_eq!(get_text(&mut other, "/fine").await.1, "fine");
}

#[tokio::test]
async fn a_stop_answers_open_streams_and_closes_idle_connections() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let finish = Arc::new(tokio::sync::Notify::new());
    let served = serve(held(tell, finish.clone()), LONG_TIMEOUTS, DRAIN).await;
    let (mut busy, busy_end) = connect(&served).await;
    let (mut idle, idle_end) = connect(&served).await;
    get_text(&mut idle, "/no").await;
    let open: Vec<_> =
        (0..10).map(|_| tokio::spawn(busy.send_request(request("GET", "/held", "")))).collect();
    for _ in 0..10 {
        assert_eq!(told.recv().await, Some("asked"));
    }
    served.stop.send(()).unwrap();
    idle_end.await.unwrap().unwrap();
    for _ in 0..10 {
        finish.notify_one();
        assert_eq!(told.recv().await, Some("dropped"));
    }
    for response in open {
        assert_eq!(text(response.await.unwrap().unwrap()).await, "finished");
    }
    busy_end.await.unwrap().unwrap();
    assert_eq!(served.cut.await.unwrap(), 0);
}

#[tokio::test]
async fn a_stop_waits_for_nobody_who_does_not_answer_its_goodbye() {
    let served = serve(app(), LONG_TIMEOUTS, DRAIN).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let _settings = silent.read_u8().await.unwrap();
    served.stop.send(()).unwrap();
    assert_eq!(served.cut.await.unwrap(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed() {
    let short = Duration::from_millis(50);
    let served = serve(app(), Timeouts { keep_alive: short, ..LONG_TIMEOUTS }, DRAIN).await;
    let (mut sender, end) = connect(&served).await;
    assert_eq!(get_text(&mut sender, "/fine").await.1, "fine");
    end.await.unwrap().unwrap();
    // What takes longer than that is no idleness.
    let slow = get(async || {
        sleep(Duration::from_millis(200)).await;
        "slow"
    });
    let served =
        serve(Router::new().route("/slow", slow), Timeouts { keep_alive: short, ..LONG_TIMEOUTS }, DRAIN)
            .await;
    let (mut sender, _) = connect(&served).await;
    assert_eq!(get_text(&mut sender, "/slow").await.1, "slow");
}

#[tokio::test]
async fn half_a_preface_is_waited_for_no_longer_than_a_head() {
    let served = serve(app(), Timeouts { head: Duration::from_millis(20), ..LONG_TIMEOUTS }, DRAIN).await;
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"PRI * HT").await.unwrap();
    assert!(slow.read_u8().await.is_err());
    // Byte by byte, but whole in time, and a request of HTTP/1.1 that begins alike.
    let served = serve(app(), LONG_TIMEOUTS, DRAIN).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for byte in b"PRI /fine HTTP/1.1\r\nhost: x\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
    }
    assert!(answer_of(&mut stream).await.0.starts_with("http/1.1 405"));
}

#[tokio::test]
async fn where_every_place_is_busy_a_probe_is_answered_and_the_rest_refused() {
    let served = serve_routes(1).await;
    let _busy = busy(served.address).await;
    for (path, status) in [("/healthz", 200), ("/v1/models", 503)] {
        let (mut sender, end) = connect(&served).await;
        assert_eq!(get_text(&mut sender, path).await.0, status, "{path}");
        // One request, and the place is free again.
        end.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_makes_way() {
    let served = serve_routes(1).await;
    let (mut idle, end) = connect(&served).await;
    get_text(&mut idle, "/healthz").await;
    let (_, head, _) = ask(served.address, "/v1/models").await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    end.await.unwrap().unwrap();
}

#[tokio::test]
async fn heads_have_a_limit_each_and_together() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let served = serve(routes(held(tell, Arc::default())), LONG_TIMEOUTS, DRAIN).await;
    let (mut sender, _) = connect(&served).await;
    get_text(&mut sender, "/healthz").await;
    let with = |path: &str, n: usize| {
        let mut request = request("GET", path, "");
        request.headers_mut().insert("x-long", "a".repeat(n).parse().unwrap());
        request
    };
    assert_eq!(sender.send_request(with("/healthz", 60_000)).await.unwrap().status(), 200);
    let open: Vec<_> = (0..4).map(|_| tokio::spawn(sender.send_request(with("/held", 60_000)))).collect();
    for _ in 0..4 {
        assert_eq!(told.recv().await, Some("asked"));
    }
    let response = sender.send_request(with("/healthz", 60_000)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(text(response).await.contains("too large together"));
    open.iter().for_each(JoinHandle::abort);
    for _ in 0..4 {
        assert_eq!(told.recv().await, Some("dropped"));
    }
    assert_eq!(sender.send_request(with("/healthz", 60_000)).await.unwrap().status(), 200);
    let refused = sender.send_request(with("/healthz", 70_000)).await.unwrap();
    assert_eq!(refused.status(), 431);
}

#[tokio::test]
async fn one_host_is_named() {
    let served = serve_routes(8).await;
    let (mut sender, _) = connect(&served).await;
    for (host, status) in [("lepton", 200), ("other", 400), ("a/b", 400)] {
        let mut request = request("GET", "/healthz", "");
        request.headers_mut().insert("host", host.parse().unwrap());
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{host}");
    }
}
