mod over_http2;

use std::net::SocketAddr;

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{places::RESERVE, *};
use crate::{
    config::{Config, LogPeer},
    metrics::Metrics,
    pipelines::Pipelines,
    pool::{ModelPool, PoolOptions},
};

/// A server without models: the connections are what is tested.
struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    /// Gives the number of connections that were cut.
    cut: JoinHandle<usize>,
}

async fn serve(app: impl App, timeouts: Timeouts, drain: Duration) -> Served {
    serve_as(&Config::default().server, app, timeouts, drain).await
}

async fn serve_as(config: &ServerConfig, app: impl App, timeouts: Timeouts, drain: Duration) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut connections = Connections::new(app, config, faults());
    connections.timeouts = timeouts;
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

fn faults() -> Faults {
    Faults::new(Arc::new(Metrics::new()), LogPeer::Address)
}

const LONG_TIMEOUTS: Timeouts = Timeouts {
    head: Duration::from_secs(60),
    keep_alive: Duration::from_secs(60),
    write: Duration::from_secs(60),
    linger: Duration::from_secs(60),
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
    let served = serve(app(), LONG_TIMEOUTS, DRAIN).await;
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
    let served = serve(app(), LONG_TIMEOUTS, DRAIN).await;
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
    let served = serve(app(), LONG_TIMEOUTS, DRAIN).await;
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
    let served = serve(app(), Timeouts { head: short, ..LONG_TIMEOUTS }, DRAIN).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    assert!(at_end(&mut silent).await);
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /fine HT").await.unwrap();
    assert!(slow.read_u8().await.is_err());

    let served = serve(app(), Timeouts { keep_alive: short, ..LONG_TIMEOUTS }, DRAIN).await;
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
    let served = serve(app, Timeouts { head: short, keep_alive: short, ..LONG_TIMEOUTS }, DRAIN).await;
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
    let served = serve(held(tell, Arc::default()), LONG_TIMEOUTS, DRAIN).await;
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
    let served = serve(held(tell, finish.clone()), LONG_TIMEOUTS, DRAIN).await;
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
    let served = serve(held(tell, Arc::default()), LONG_TIMEOUTS, Duration::from_millis(10)).await;
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
    let mut connections = Connections::new(app(), &Config::default().server, faults());
    connections.accept_until(&listener, std::future::ready(())).await;
    connections.accept_backlog(listener).await;
    let finish = tokio::spawn(connections.finish(DRAIN));
    for mut stream in streams {
        assert_eq!(answer_of(&mut stream).await.1, "fine");
    }
    assert_eq!(finish.await.unwrap(), 0);
}

/// The real routes, and those of `more` before them.
fn routes(more: Router) -> Router {
    let options = PoolOptions { workers: 1, queue_rows: 1, queue_bytes: 1 };
    more.fallback_service(Routes::new(AppState::new(
        Config::default(),
        Arc::new(ModelPool::start(&options, Vec::new(), &Metrics::new()).unwrap()),
        Pipelines::default(),
        Arc::new(Metrics::new()),
    )))
}

/// A server of all routes with this number of regular places.
async fn serve_routes(places: usize) -> Served {
    let config = ServerConfig { max_connections: places, ..Config::default().server };
    serve_as(&config, routes(app()), LONG_TIMEOUTS, DRAIN).await
}

async fn ask(address: SocketAddr, path: &str) -> (TcpStream, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let (head, body) = answer_of(&mut stream).await;
    (stream, head, body)
}

/// Sends a body without its last byte to a route that reads it, and waits until it is being read: a
/// connection that nobody may end.
async fn busy(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /read HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(answer_of(&mut stream).await.0.starts_with("http/1.1 100"));
    stream
}

#[tokio::test]
async fn where_every_place_is_busy_probes_are_answered_and_the_rest_refused_until_there_is_room() {
    let config = ServerConfig { max_connections: 1, ..Config::default().server };
    let (tell, mut told) = mpsc::unbounded_channel();
    let finish = Arc::new(tokio::sync::Notify::new());
    let served = serve_as(&config, routes(held(tell, finish.clone())), LONG_TIMEOUTS, DRAIN).await;
    let mut first = TcpStream::connect(served.address).await.unwrap();
    first.write_all(HELD).await.unwrap();
    assert_eq!(told.recv().await, Some("asked"));

    let (mut probe, head, _) = ask(served.address, "/healthz").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert!(at_end(&mut probe).await);
    let (mut refused, head, body) = ask(served.address, "/v1/models").await;
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 1\r\n"), "{head}");
    assert!(head.contains("connection: close") && body.contains("server.max_connections"), "{head}{body}");
    assert!(at_end(&mut refused).await);

    finish.notify_one();
    assert_eq!(answer_of(&mut first).await.1, "finished");
    // It is idle now, and makes way.
    let (_second, head, _) = ask(served.address, "/v1/models").await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    assert!(at_end(&mut first).await);
}

#[tokio::test]
async fn where_every_place_is_taken_the_connection_that_is_idle_longest_makes_way() {
    let served = serve_routes(3).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(ask(served.address, "/healthz").await.0);
    }
    for round in 0..6 {
        let (newcomer, head, _) = ask(served.address, "/v1/models").await;
        assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{round}: {head}");
        assert!(at_end(&mut idle.remove(0)).await, "{round}");
        idle.push(newcomer);
        // Those that stay are served on.
        for stream in &mut idle {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            assert!(answer_of(stream).await.0.starts_with("http/1.1 200"));
        }
    }
}

#[tokio::test]
async fn connections_that_send_nothing_or_half_a_head_make_way_after_a_second() {
    let served = serve_routes(2).await;
    let _silent = TcpStream::connect(served.address).await.unwrap();
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let mut newcomers = Vec::new();
    while newcomers.len() < 2 {
        let (newcomer, head, _) = ask(served.address, "/v1/models").await;
        // Until then there is the reserve.
        assert!(head.starts_with("http/1.1 200") || head.contains("connection: close"), "{head}");
        if !head.contains("connection: close") {
            newcomers.push(newcomer);
        }
    }
    assert!(slow.read_u8().await.is_err());
}

#[tokio::test]
async fn nobody_holds_the_reserve() {
    let served = serve_routes(1).await;
    let busy = busy(served.address).await;
    let mut hogs = Vec::new();
    for n in 0..4 * RESERVE {
        let mut hog = TcpStream::connect(served.address).await.unwrap();
        let refused = b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n";
        // Half of them are refused and then send nothing, half send nothing from the start.
        if n % 2 == 0 {
            hog.write_all(refused).await.unwrap();
        }
        hogs.push(hog);
        let (_, head, _) = ask(served.address, "/healthz").await;
        assert!(head.starts_with("http/1.1 200"), "{n}: {head}");
    }
    drop(busy);
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let served = serve(app(), LONG_TIMEOUTS, DRAIN).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let pair =
        "GET /fine HTTP/1.1\r\nhost: x\r\n\r\nPOST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
    stream.write_all(pair.repeat(500).as_bytes()).await.unwrap();
    for _ in 0..500 {
        assert_eq!(answer_of(&mut stream).await.1, "fine");
        assert_eq!(answer_of(&mut stream).await.1, "3");
    }
}

#[tokio::test]
async fn an_answer_that_is_being_read_is_not_cut_for_a_newcomer() {
    let long = "x".repeat(8 << 20);
    let text = long.clone();
    let app = app().route("/long", get(async || text));
    let config = ServerConfig { max_connections: 1, ..Config::default().server };
    let served = serve_as(&config, app, LONG_TIMEOUTS, DRAIN).await;
    let mut reader = TcpStream::connect(served.address).await.unwrap();
    reader.write_all(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // More than the kernel holds for a reader: the rest waits in the server.
    reader.read_u8().await.unwrap();
    let (_, head, _) = ask(served.address, "/fine").await;
    assert!(head.contains("connection: close"), "there is the reserve: {head}");
    let mut rest = Vec::new();
    while rest.len() < long.len() {
        assert!(reader.read_buf(&mut rest).await.unwrap() > 0, "cut after {} bytes", rest.len());
    }
}
