use std::net::SocketAddr;

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::*;
use crate::{
    config::Config,
    metrics::Metrics,
    pool::{ModelPool, PoolOptions, Rule},
};

/// A server without models: the connections are what is tested.
struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    /// Gives the number of connections that were cut.
    cut: JoinHandle<usize>,
}

async fn serve(app: impl App, patience: Patience, drain: Duration) -> Served {
    serve_as(&Config::default().server, app, patience, drain).await
}

async fn serve_as(config: &ServerConfig, app: impl App, patience: Patience, drain: Duration) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut connections = Connections::new(app, config);
    connections.patience = patience;
    let cut = tokio::spawn(async move {
        connections
            .accept_until(&listener, async {
                let _ = stopped.await;
            })
            .await;
        connections.accept_backlog(listener).await;
        connections.finish(drain).await
    });
    Served { address, stop, cut }
}

const PATIENT: Patience = Patience {
    head: Duration::from_secs(60),
    keep_alive: Duration::from_secs(60),
    write: Duration::from_secs(60),
};
const DRAIN: Duration = Duration::from_secs(60);

fn app() -> Router {
    Router::new().route("/fine", get(async || "fine")).route("/refuse", post(async || "refused")).route(
        "/read",
        post(async |body: Bytes| body.len().to_string()).layer(axum::extract::DefaultBodyLimit::disable()),
    )
}

/// Reads one answer: its head in lower case, and its body.
async fn answer_of(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer's head"));
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn at_end(stream: &mut TcpStream) -> bool {
    matches!(stream.read_u8().await, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof)
}

#[tokio::test]
async fn a_refused_upload_still_gets_to_read_its_answer() {
    let served = serve(app(), PATIENT, DRAIN).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let length = 20 << 20;
    stream
        .write_all(format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    // A caller that reads nothing before it has sent everything, as many HTTP libraries do.
    stream.write_all(&vec![7; length]).await.unwrap();
    let (head, body) = answer_of(&mut stream).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(body, "refused");
    assert!(at_end(&mut stream).await);
}

#[tokio::test]
async fn a_short_refused_body_keeps_the_connection() {
    let served = serve(app(), PATIENT, DRAIN).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&vec![7; 100_000]).await.unwrap();
        let (head, body) = answer_of(&mut stream).await;
        assert!(!head.contains("connection: close"), "{head}");
        assert_eq!(body, "refused");
    }
}

#[tokio::test]
async fn a_caller_that_waits_for_continue_is_told_so_only_if_its_body_is_wanted() {
    let served = serve(app(), PATIENT, DRAIN).await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    };
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head("/read").as_bytes()).await.unwrap();
    assert!(answer_of(&mut stream).await.0.starts_with("http/1.1 100 continue"));
    stream.write_all(b"abc").await.unwrap();
    assert_eq!(answer_of(&mut stream).await.1, "3");

    stream.write_all(head("/refuse").as_bytes()).await.unwrap();
    let (head, body) = answer_of(&mut stream).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(body, "refused");
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let short = Duration::from_millis(20);
    let served = serve(app(), Patience { head: short, ..PATIENT }, DRAIN).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    assert!(at_end(&mut silent).await);
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /fine HT").await.unwrap();
    assert!(slow.read_u8().await.is_err());

    let served = serve(app(), Patience { keep_alive: short, ..PATIENT }, DRAIN).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /fine HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer_of(&mut idle).await.1, "fine");
    assert!(at_end(&mut idle).await);
}

#[tokio::test]
async fn an_answer_may_take_longer_than_any_patience_with_the_caller() {
    let short = Duration::from_millis(10);
    let app = Router::new().route(
        "/slow",
        get(async || {
            sleep(Duration::from_millis(60)).await;
            "done"
        }),
    );
    let served = serve(app, Patience { head: short, keep_alive: short, ..PATIENT }, DRAIN).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer_of(&mut stream).await.1, "done");
}

/// Tells when it is dropped.
struct Tell(mpsc::UnboundedSender<&'static str>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

/// A route that tells when it is asked and when it is left, and answers once `finish` is notified.
fn held(tell: mpsc::UnboundedSender<&'static str>, finish: Arc<tokio::sync::Notify>) -> Router {
    Router::new().route(
        "/held",
        get(move || {
            let (tell, finish) = (tell.clone(), finish.clone());
            async move {
                tell.send("asked").unwrap();
                let _guard = Tell(tell);
                finish.notified().await;
                "finished"
            }
        }),
    )
}

const HELD: &[u8] = b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_caller_that_leaves_drops_its_request() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let served = serve(held(tell, Arc::default()), PATIENT, DRAIN).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(HELD).await.unwrap();
    assert_eq!(told.recv().await, Some("asked"));
    drop(stream);
    assert_eq!(told.recv().await, Some("dropped"));
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let finish = Arc::new(tokio::sync::Notify::new());
    let served = serve(held(tell, finish.clone()), PATIENT, DRAIN).await;
    let mut busy = TcpStream::connect(served.address).await.unwrap();
    busy.write_all(HELD).await.unwrap();
    assert_eq!(told.recv().await, Some("asked"));
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /no HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    answer_of(&mut idle).await;

    served.stop.send(()).unwrap();
    assert!(at_end(&mut idle).await, "the idle connection is closed while the other is in flight");
    finish.notify_one();
    let (head, body) = answer_of(&mut busy).await;
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(body, "finished");
    assert_eq!(served.cut.await.unwrap(), 0);
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn what_outlives_the_drain_is_cut_and_counted() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let served = serve(held(tell, Arc::default()), PATIENT, Duration::from_millis(10)).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(HELD).await.unwrap();
    assert_eq!(told.recv().await, Some("asked"));
    served.stop.send(()).unwrap();
    assert_eq!(served.cut.await.unwrap(), 1);
    assert_eq!(told.recv().await, Some("dropped"));
}

#[tokio::test]
async fn a_request_in_the_backlog_is_answered_after_a_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /fine HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        streams.push(stream);
    }
    let mut connections = Connections::new(app(), &Config::default().server);
    connections.accept_until(&listener, std::future::ready(())).await;
    connections.accept_backlog(listener).await;
    let finish = tokio::spawn(connections.finish(DRAIN));
    for mut stream in streams {
        assert_eq!(answer_of(&mut stream).await.1, "fine");
    }
    assert_eq!(finish.await.unwrap(), 0);
}

#[tokio::test]
async fn a_full_server_answers_probes_and_refuses_the_rest_until_there_is_room() {
    let config = ServerConfig { max_connections: 1, ..Config::default().server };
    let options = PoolOptions { workers: 1, queue_rows: 1, queue_bytes: 1, rule: Rule::default() };
    let app = Routes::new(AppState::new(
        Config::default(),
        Arc::new(ModelPool::start(&options, Vec::new(), &Metrics::new()).unwrap()),
        Arc::new(Metrics::new()),
    ));
    let served = serve_as(&config, app, PATIENT, DRAIN).await;
    let ask = async |path: &str| {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let (head, body) = answer_of(&mut stream).await;
        (stream, head, body)
    };
    let (first, head, _) = ask("/v1/models").await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");

    let (mut probe, head, _) = ask("/healthz").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert!(at_end(&mut probe).await);
    let (mut refused, head, body) = ask("/v1/models").await;
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 1\r\n"), "{head}");
    assert!(head.contains("connection: close") && body.contains("server.max_connections"), "{head}{body}");
    assert!(at_end(&mut refused).await);

    drop(first);
    // The place is free once the server has seen the first caller leave.
    while !ask("/v1/models").await.1.starts_with("http/1.1 200") {}
}
