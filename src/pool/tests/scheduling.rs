//! Who goes first, who lingers for others, what is promised, and how many work.

use super::*;
use crate::manifest::Balance;

/// Asks the pool's model on these terms.
fn ask(pool: &ModelPool, text: &str, terms: Claim) -> Result<Reply, Error> {
    let reservation = pool.reserve(&pool.models()[0], terms)?;
    Ok(reservation.submit(vec![Input::text(text)])?.remove(0))
}

fn minute() -> Claim {
    claim(Duration::from_secs(60))
}

#[tokio::test]
async fn batch_work_waits_while_others_do() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let first = ask(&pool, "1", minute()).unwrap();
    gate.wait_for(1);
    let batch = ask(&pool, "2", Claim { class: Class::Batch, ..claim(Duration::from_secs(50)) }).unwrap();
    let late = ask(&pool, "3", minute()).unwrap();
    gate.release();
    for reply in [first, batch, late] {
        reply.await.unwrap();
    }
    assert_eq!(gate.runs(), [vec![1.0], vec![3.0], vec![2.0]]);
}

#[tokio::test]
async fn who_agreed_to_wait_is_joined_by_who_comes_next() {
    let (pool, _gate) = pool(ROOM).await;
    let cheap = Claim { balance: Balance::Cheap, ..minute() };
    let mut largest = Vec::new();
    // On a busy machine a caller may be stopped for longer than rows are waited for: then once more.
    while largest.len() < 100 && !largest.contains(&8) {
        // Rows come fast enough for others to be expected.
        for _ in 0..10 {
            ask(&pool, "0", minute()).unwrap().await.unwrap();
        }
        let replies: Vec<Reply> =
            (1..=8).map(|i| ask(&pool, &i.to_string(), cheap.clone()).unwrap()).collect();
        let mut batches = Vec::new();
        for reply in replies {
            batches.push(reply.await.unwrap().cost.batch);
        }
        largest.push(batches.into_iter().max().unwrap());
    }
    assert_eq!(largest.last(), Some(&8), "the first waits until there is a full batch: {largest:?}");
}

#[tokio::test]
async fn a_fast_row_ends_the_wait_of_those_before_it() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let busy = ask(&pool, "1", minute()).unwrap();
    gate.wait_for(1);
    let cheap = ask(&pool, "2", Claim { balance: Balance::Cheap, ..minute() }).unwrap();
    let fast = ask(&pool, "3", minute()).unwrap();
    gate.release();
    busy.await.unwrap();
    assert_eq!((cheap.await.unwrap().cost.batch, fast.await.unwrap().cost.batch), (2, 2));
}

#[tokio::test]
async fn what_would_break_a_promise_to_others_is_refused() {
    let (pool, gate) = pool(ROOM).await;
    let model = &pool.models()[0];
    for _ in 0..100 {
        model.costs().learn(1, 1, 1, Duration::from_secs(2));
    }
    let _held = gate.hold();
    let running = ask(&pool, "1", minute()).unwrap();
    gate.wait_for(1);
    let promised: Vec<Reply> =
        (0..4).map(|_| ask(&pool, "2", claim(Duration::from_secs(15))).unwrap()).collect();
    let hurried = ask(&pool, "3", claim(Duration::from_secs(14)));
    let Err(Error::Overloaded { reason, forecast, .. }) = hurried else { panic!("a promise was broken") };
    assert!(reason.contains("promised to others"), "{reason}");
    assert!(forecast < Duration::from_secs(14), "{forecast:?}");
    assert!(ask(&pool, "4", minute()).is_ok(), "who has time is welcome");
    gate.release();
    for reply in promised.into_iter().chain([running]) {
        assert!(reply.await.is_ok());
    }
}

#[tokio::test]
async fn promises_are_counted_as_they_are_kept_or_broken() {
    let gate = Arc::new(Gate::default());
    let metrics = Metrics::new();
    let pool = ModelPool::start(&ROOM, vec![declare("double", &gate)], &metrics).unwrap();
    pool.ready().await.unwrap();
    gate.wait_for(WARM_UP_RUNS);
    ask(&pool, "1", minute()).unwrap().await.unwrap();
    let _held = gate.hold();
    let busy = ask(&pool, "2", minute()).unwrap();
    gate.wait_for(WARM_UP_RUNS + 2);
    let arrived = Instant::now();
    let late = ask(&pool, "3", claim(Duration::from_millis(300))).unwrap();
    let left = ask(&pool, "4", claim(Duration::from_secs(60))).unwrap();
    drop(left);
    while arrived.elapsed() <= Duration::from_millis(300) {
        std::hint::spin_loop();
    }
    gate.release();
    busy.await.unwrap();
    assert!(matches!(late.await, Err(Error::DeadlineExceeded { .. })));
    let text = metrics.encode();
    let count = |outcome: &str| {
        let series =
            format!("lepton_promises_total{{model=\"double\",outcome=\"{outcome}\",version=\"1\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((count("kept"), count("broken")), (2, 1), "who left of their own is not counted");
    assert!(text.contains("lepton_forecast_ratio_count{model=\"double\",version=\"1\"} 2"), "{text}");
}

#[tokio::test]
async fn workers_come_and_go_while_requests_are_answered() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let alone = [ask(&pool, "1", minute()).unwrap()];
    gate.wait_for(1);
    pool.resize(3).unwrap();
    assert_eq!(pool.workers(), 3);
    let more = ["2,2", "3"].map(|text| ask(&pool, text, minute()).unwrap());
    gate.wait_for(3);
    pool.resize(1).unwrap();
    let queued = [ask(&pool, "4", minute()).unwrap()];
    gate.release();
    for reply in alone.into_iter().chain(more).chain(queued) {
        reply.await.unwrap();
    }
    pool.resize(0).unwrap();
    assert_eq!(pool.workers(), 1, "somebody has to work");
    pool.resize(2).unwrap();
    let both = ["5", "6"].map(|text| ask(&pool, text, minute()).unwrap());
    for reply in both {
        reply.await.unwrap();
    }
}

#[tokio::test]
async fn a_cost_that_is_no_longer_true_is_measured_again_once_it_keeps_callers_out() {
    let (pool, gate) = pool(ROOM).await;
    for _ in 0..100 {
        pool.models()[0].costs().learn(1, 1, 1, Duration::from_secs(2));
    }
    let runs = gate.runs().len();
    assert!(ask(&pool, "1", claim(Duration::from_millis(50))).is_err());
    gate.wait_for(runs + 4);
    let started = Instant::now();
    while ask(&pool, "1", claim(Duration::from_millis(50))).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "nobody looked again");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn refusals_do_not_keep_workers_measuring() {
    let (pool, gate) = pool(ROOM).await;
    let (began, before, asked) = (Instant::now(), gate.runs().len(), 50);
    for _ in 0..asked {
        assert!(ask(&pool, "1", claim(Duration::from_micros(1))).is_err());
        ask(&pool, "2", minute()).unwrap().await.unwrap();
    }
    let measured = gate.runs().len() - before - asked;
    // A measurement is four runs, after which it rests for two hundred times as long.
    let rests = began.elapsed().as_nanos() / (200 * 4 * RUN).as_nanos();
    assert!(measured <= 4 * (2 + rests as usize), "{measured} runs to measure, {rests} rests");
}

#[tokio::test]
async fn what_is_held_for_a_later_answer_is_promised_to_nobody_else() {
    let (pool, _gate) = pool(ROOM).await;
    let model = &pool.models()[0];
    for _ in 0..100 {
        model.costs().learn(1, 1, 1, Duration::from_secs(2));
    }
    let terms = || claim(Duration::from_secs(4));
    assert!(pool.reserve(model, terms()).is_ok());
    let held = pool.reserve_with_time(model, terms()).unwrap();
    assert!((1.9..=2.1).contains(&held.takes().as_secs_f64()), "{:?}", held.takes());
    let Err(Error::Overloaded { reason, .. }) = pool.reserve(model, terms()) else { panic!("admitted") };
    assert!(reason.contains("deadline of 4000 ms"), "{reason}");
    drop(held);
    assert!(pool.reserve(model, terms()).is_ok(), "a dropped reservation owes nothing");
    let held = pool.reserve_with_time(model, terms()).unwrap();
    assert!(held.submit(vec![Input::text("1")]).is_ok(), "what was held is not asked for twice");
}

#[tokio::test]
async fn what_comes_after_an_answer_makes_it_due_sooner() {
    let (pool, _gate) = pool(ROOM).await;
    let model = &pool.models()[0];
    for _ in 0..100 {
        model.costs().learn(1, 1, 1, Duration::from_secs(2));
    }
    let first = |after: u64| Claim { after: Duration::from_secs(after), ..claim(Duration::from_secs(5)) };
    assert!(pool.reserve(model, first(1)).is_ok());
    let Err(Error::Overloaded { reason, forecast, .. }) = pool.reserve(model, first(4)) else {
        panic!("admitted")
    };
    assert!(reason.ends_with("after the deadline of 5000 ms"), "{reason}");
    assert!((5.9..=6.1).contains(&forecast.as_secs_f64()), "{forecast:?}");
    assert!(pool.reserve(model, first(9)).is_err(), "more than all of the time");
}
