//! One measurement from start to end: callers who ask, a clock that says when, and somebody who watches.
//!
//! Invariant: when it returns, every task that it started has ended.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, task::JoinSet, time};

use super::{
    Arrivals, End, Load, LoadError, Outcome, Plan, Progress, Schedule,
    answer::Keep,
    client::{Connection, Fault},
    desk::{Desk, Job, Staff},
    pace::Pacer,
    stats::{Ended, Recorder, What},
    target::Target,
    watch::Watch,
    window::Window,
};

/// Longest wait for answers after an interruption.
const LEAVE: Duration = Duration::from_millis(500);
/// Shortest and longest pause of a closed caller who got no answer, so that a server which is gone is not
/// asked in a hot loop.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// Arrivals that are handed in at once before others have their turn.
const BURST: u32 = 64;

/// Measures as planned, until the plan's end or until `stop` is ready. `tell` hears once a second how it
/// goes. Runs on the runtime that it is called on, which needs time and I/O.
///
/// # Errors
///
/// Only where nothing can be measured at all; whatever goes wrong later is part of the outcome.
pub async fn run(
    plan: &Plan,
    stop: impl Future<Output = ()>,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Outcome, LoadError> {
    let address = plan.target.address;
    let is_endless = !matches!(&plan.load, Load::Open { arrivals: Arrivals::Recorded(_), .. });
    if plan.duration.is_none() && is_endless {
        return Err(LoadError::Endless);
    }
    let connect = time::timeout(plan.timeout, TcpStream::connect(address)).await;
    let connect = connect.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connect.map_err(|source| LoadError::Unreachable { address, source })?;

    let (most_callers, schedule) = match &plan.load {
        Load::Closed(callers) => (callers.get(), None),
        Load::Open { arrivals, most_connections } => (most_connections.get(), Some(arrivals.schedule())),
    };
    let mut pacer = Pacer::new().map_err(LoadError::Timer)?;
    let shared = Arc::new(Shared::new(plan, most_callers));
    let mut watch = Watch::new(plan, &shared);
    let mut callers = JoinSet::new();
    let end = match schedule {
        None => {
            for _ in 0..most_callers {
                callers.spawn(Arc::clone(&shared).ask_again_and_again());
            }
            watch.until_the_end(stop, tell).await
        }
        Some(schedule) => {
            let mut clerk = Clerk { shared: &shared, schedule, next: None, n_due: 0, callers: &mut callers };
            let mut stop = pin!(stop);
            let ended = tokio::select! {
                end = watch.until_the_end(stop.as_mut(), tell) => Some(end),
                done = clerk.hand_in_all(&mut pacer) => {
                    done.map_err(LoadError::Timer)?;
                    None
                }
            };
            clerk.hand_in_what_is_due();
            match ended {
                Some(end) => {
                    shared.recorder.unsent(&shared.window, &shared.desk.close());
                    end
                }
                None => {
                    shared.desk.end();
                    tokio::select! {
                        end = watch.until_the_end(stop, tell) => end,
                        () = drain(&mut callers) => {
                            shared.window.closes(shared.window.offset(Instant::now()));
                            End::Exhausted
                        }
                    }
                }
            }
        }
    };
    let cpu = watch.cpu();
    if end == End::Interrupted {
        let _in_time = time::timeout(LEAVE, drain(&mut callers)).await;
        callers.shutdown().await;
    } else {
        // Each request has a time limit of its own, so this ends.
        drain(&mut callers).await;
    }
    Ok(watch.outcome(plan, end, cpu))
}

async fn drain(callers: &mut JoinSet<()>) {
    while callers.join_next().await.is_some() {}
}

/// What all callers share.
pub(super) struct Shared {
    target: Target,
    timeout: Duration,
    pub(super) window: Window,
    pub(super) recorder: Recorder,
    pub(super) desk: Desk,
    n_asked: AtomicU64,
    pub(super) n_connections: AtomicU64,
}

impl Shared {
    fn new(plan: &Plan, most_callers: usize) -> Self {
        let began = Instant::now();
        Self {
            target: plan.target.clone(),
            timeout: plan.timeout,
            window: Window::new(began),
            recorder: Recorder::new(plan.deadline, began),
            desk: Desk::new(most_callers),
            n_asked: AtomicU64::new(0),
            n_connections: AtomicU64::new(0),
        }
    }

    /// A caller of a closed loop.
    async fn ask_again_and_again(self: Arc<Self>) {
        let (mut connection, mut pause) = (None, PAUSE.0);
        loop {
            let intended = Instant::now();
            if self.window.is_over(self.window.offset(intended)) {
                return;
            }
            let job = Job { intended, number: self.n_asked.fetch_add(1, Ordering::Relaxed) };
            self.recorder.intend(&self.window, intended, intended);
            match self.serve(&mut connection, &job).await {
                What::Answered { .. } => pause = PAUSE.0,
                What::Failed(_) => {
                    time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    /// A caller of an open loop.
    async fn take_and_ask(self: Arc<Self>) {
        let mut connection = None;
        while let Some(job) = self.desk.take().await {
            self.serve(&mut connection, &job).await;
            self.desk.is_free();
        }
    }

    /// Sends one request and writes down what came of it.
    async fn serve(&self, connection: &mut Option<Connection>, job: &Job) -> What {
        let request = self.target.requests.get(job.number as usize % self.target.requests.len());
        let request = request.map_or(&[][..], |request| request);
        let mut sent = None;
        let exchange = self.exchange(connection, request, &mut sent);
        let what = match time::timeout(self.timeout, exchange).await {
            Ok(what) => what,
            Err(_) => What::Failed(Fault::TimedOut),
        };
        if matches!(what, What::Failed(_)) {
            *connection = None;
        }
        let ended = Ended { what, sent, at: Instant::now(), request_bytes: request.len() };
        self.recorder.record(&self.window, job, &ended);
        what
    }

    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        request: &[u8],
        sent: &mut Option<Instant>,
    ) -> What {
        if connection.as_ref().is_some_and(Connection::is_stale) {
            *connection = None;
        }
        let open = match connection.take() {
            Some(open) => open,
            None => match self.connect(self.target.address).await {
                Ok(open) => open,
                Err(error) => return What::Failed(Fault::Connect(error.kind())),
            },
        };
        let open = connection.insert(open);
        *sent = Some(Instant::now());
        match open.exchange(request, self.target.method).await {
            Ok(answer) => {
                if answer.connection == Keep::Closed {
                    *connection = None;
                }
                What::Answered {
                    status: answer.status,
                    retry_after: answer.retry_after,
                    received: answer.received,
                }
            }
            Err(fault) => What::Failed(fault),
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let open = Connection::open(address).await?;
        self.n_connections.fetch_add(1, Ordering::Relaxed);
        Ok(open)
    }
}

/// Hands in the requests of an open loop as they are due.
struct Clerk<'r> {
    shared: &'r Arc<Shared>,
    schedule: Schedule,
    /// Taken from the schedule and not handed in yet.
    next: Option<Duration>,
    n_due: u64,
    callers: &'r mut JoinSet<()>,
}

impl Clerk<'_> {
    /// Hands in all there are. May be dropped half way; nothing is lost then.
    async fn hand_in_all(&mut self, pacer: &mut Pacer) -> io::Result<()> {
        let mut burst = 0;
        while let Some(due) = self.peek() {
            if self.shared.window.is_over(due) {
                // Whoever watches finds so, too.
                std::future::pending::<()>().await;
            }
            let moment = self.shared.window.began + due;
            if moment <= Instant::now() && burst < BURST {
                burst += 1;
            } else {
                pacer.until(moment).await?;
                tokio::task::yield_now().await;
                burst = 0;
            }
            self.hand_in(due);
        }
        Ok(())
    }

    /// Hands in what should have been by now and is measured.
    fn hand_in_what_is_due(&mut self) {
        while let Some(due) = self.peek()
            && self.shared.window.until().is_some_and(|until| due < until)
        {
            self.hand_in(due);
        }
    }

    fn peek(&mut self) -> Option<Duration> {
        if self.next.is_none() {
            self.next = self.schedule.next();
        }
        self.next
    }

    fn hand_in(&mut self, due: Duration) {
        self.next = None;
        let job = Job { intended: self.shared.window.began + due, number: self.n_due };
        self.n_due += 1;
        self.shared.recorder.intend(&self.shared.window, job.intended, Instant::now());
        if self.shared.desk.put(job) == Staff::OneMore {
            self.callers.spawn(Arc::clone(self.shared).take_and_ask());
        }
    }
}
