use super::*;

const MS: Duration = Duration::from_millis(1);

fn running(until: Instant, burden: Burden, request: u64) -> Running {
    Running { until, burden, is_dear: burden == Burden::Heavy, request: NonZero::new(request) }
}

fn ask(due: Instant, work: Duration) -> Ask {
    Ask { due, whole: work, longest: work, batch_delay: Duration::ZERO, burden: Burden::Light }
}

#[test]
fn a_worker_that_is_overdue_is_busy_for_as_long_as_it_has_been_late() {
    let now = Instant::now();
    let mut ledger = Ledger::new(1, now);
    ledger.begin(0, running(now + 10 * MS, Burden::Light, 0));
    let finish =
        |ledger: &Ledger, now: Instant| ledger.forecast(ask(now + 1000 * MS, MS), now).finish.as_millis();
    assert_eq!(finish(&ledger, now), 11);
    assert_eq!(finish(&ledger, now + 10 * MS), 1, "it is about to end");
    assert_eq!(finish(&ledger, now + 410 * MS), 401, "or it is not");
    ledger.end(0);
    assert_eq!(finish(&ledger, now + 410 * MS), 1);
}

#[test]
fn dear_rows_leave_a_worker_to_others_while_there_are_any() {
    let now = Instant::now();
    let mut ledger = Ledger::new(3, now);
    let dear = running(now + 400 * MS, Burden::Heavy, 0);
    ledger.begin(0, dear);
    ledger.begin(1, dear);
    assert!(ledger.turn(2, now).takes_dear, "nobody else is there");
    assert!(!ledger.turn(2, now).takes_unknown && ledger.turn(1, now).takes_unknown);
    ledger.asked(Burden::Unknown, now);
    ledger.asked(Burden::Heavy, now);
    assert!(ledger.turn(2, now).takes_dear);
    ledger.asked(Burden::Light, now);
    assert!(!ledger.turn(2, now).takes_dear);
    assert!(ledger.turn(1, now).takes_dear, "its own is over when it asks");
    assert!(ledger.turn(2, now + LATELY).takes_dear);
    assert_eq!(ledger.looks_again(), Some(now + LATELY));
    let mut single = Ledger::new(1, now);
    single.asked(Burden::Light, now);
    single.begin(0, dear);
    single.end(0);
    let turn = single.turn(0, now);
    assert!(
        turn.takes_dear && turn.yields(NonZero::new(0), true) && !turn.yields(NonZero::new(0), false),
        "others go between two of them"
    );
}

#[test]
fn a_request_that_holds_all_workers_but_one_lets_others_go_first() {
    let now = Instant::now();
    let mut ledger = Ledger::new(3, now);
    ledger.begin(0, running(now, Burden::Light, 7));
    assert!(!ledger.turn(2, now).yields(NonZero::new(7), false));
    ledger.begin(1, running(now, Burden::Light, 7));
    assert!(ledger.turn(2, now).yields(NonZero::new(7), false));
    assert!(
        !ledger.turn(2, now).yields(NonZero::new(8), false)
            && !ledger.turn(2, now).yields(NonZero::new(0), false)
    );
    ledger.end(0);
    assert!(ledger.turn(0, now).yields(NonZero::new(7), false), "by turns on one worker, too");
    ledger.begin(0, running(now, Burden::Light, 8));
    ledger.end(0);
    assert!(!ledger.turn(0, now).yields(NonZero::new(7), false));
}

#[test]
fn heavy_requests_have_all_workers_while_they_are_alone() {
    let now = Instant::now();
    for (workers, shared) in [(1, 0.75), (2, 1.0), (3, 2.0), (4, 3.0), (16, 12.0)] {
        let mut ledger = Ledger::new(workers, now);
        assert_eq!(ledger.heavy_workers(now), workers as f64);
        ledger.asked(Burden::Light, now);
        assert_eq!(ledger.heavy_workers(now), shared);
        assert_eq!(ledger.heavy_workers(now + LATELY), workers as f64);
    }
}

#[test]
fn more_workers_than_most_machines_have_are_summed_up_alike() {
    let now = Instant::now();
    for workers in [INLINE, INLINE + 1] {
        let mut ledger = Ledger::new(workers, now);
        (0..workers).for_each(|worker| ledger.begin(worker, running(now + 10 * MS, Burden::Light, 0)));
        assert_eq!(ledger.forecast(ask(now + 1000 * MS, MS), now).finish.as_millis(), 11);
    }
}
