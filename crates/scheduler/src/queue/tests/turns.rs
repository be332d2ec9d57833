//! Who gets a worker: dear rows, rows of many, and those who come meanwhile.

use super::*;

fn dear<'n>(names: &'n [&'n str]) -> Rows<'n> {
    Rows { names, due: 60_000 * MS, cost: 400 * MS, is_unknown: false }
}

fn text<'n>(names: &'n [&'n str]) -> Rows<'n> {
    Rows { names, due: 100 * MS, cost: MS, is_unknown: false }
}

#[test]
fn dear_rows_never_hold_all_workers_while_others_come() {
    let mut bench = Bench::new(2);
    bench.come(text(&["hello"]));
    assert_eq!(bench.next(0).unwrap(), "hello");
    bench.come(dear(&["a", "b", "c"]));
    assert_eq!(bench.next(0).unwrap(), "a");
    assert_eq!(bench.next(1), None, "it is left to others");
    for _ in 0..10 {
        bench.now += 30 * MS;
        bench.come(text(&["again"]));
        assert_eq!(bench.next(1).unwrap(), "again");
        assert_eq!(bench.next(1), None);
    }
    bench.now += Duration::from_secs(2);
    assert_eq!(bench.next(1).unwrap(), "b", "nobody else comes");
    assert_eq!(bench.next(0).unwrap(), "c", "and no throughput is lost");
}

#[test]
fn dear_rows_that_are_left_to_others_are_owed_no_more_once_they_are_late() {
    let mut bench = Bench::new(2);
    bench.come(Rows { due: 1000 * MS, ..dear(&["a", "b"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    bench.come(text(&["hello"]));
    assert_eq!(bench.next(1).unwrap(), "hello");
    bench.queue.finish(1, Done::Nothing, bench.now);
    let (work, _) = bench.queue.take(1, bench.now);
    let Work::Idle(Some(until)) = work else { panic!("the worker rests for good") };
    assert!(until <= bench.now + 1000 * MS);
    // The first takes for ever, and nobody is admitted who would have a worker look.
    let (_, ended) = bench.queue.take(1, until);
    assert_eq!(ended.len(), 1, "the other is late");
    assert!(bench.queue.is_empty());
}

#[test]
fn rows_of_which_nobody_knows_what_they_cost_never_hold_all_workers() {
    let mut bench = Bench::new(2);
    bench.come(Rows { is_unknown: true, ..dear(&["a", "b", "c"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    assert_eq!(bench.next(1), None, "though nobody else is there");
    bench.costs.0.borrow_mut().handling.learn(Workload::of_bytes(1), 1, 0.4, bench.now);
    assert_eq!(bench.next(1).unwrap(), "b", "until one of them is answered");
}

#[test]
fn a_single_worker_takes_others_between_two_dear_rows() {
    let mut bench = Bench::new(1);
    bench.come(Rows { due: 5000 * MS, ..dear(&["a", "b"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    bench.come(Rows { due: 9000 * MS, ..text(&["later"]) });
    assert_eq!(bench.next(0).unwrap(), "later", "though it is due after the other dear row");
    assert_eq!(bench.next(0).unwrap(), "b");
}

#[test]
fn rows_of_many_take_turns_with_those_who_come_after() {
    for workers in [1, 2] {
        let mut bench = Bench::new(workers);
        let names = ["a"; 40];
        bench.come(Rows { due: 10_000 * MS, cost: 5 * MS, ..text(&names) });
        assert_eq!(bench.next(0).unwrap(), "a");
        bench.now += MS;
        bench.come(Rows { due: 10_000 * MS, ..text(&["single"]) });
        let last = workers - 1;
        assert_eq!(bench.next(last).unwrap(), "single", "{workers} workers");
        assert_eq!(bench.next(last).unwrap(), "a", "{workers} workers: nobody waits any more");
    }
}

#[test]
fn nobody_goes_first_where_that_breaks_a_promise() {
    let mut bench = Bench::new(1);
    bench.come(Rows { due: 1000 * MS, ..dear(&["a", "b"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    bench.now += 400 * MS;
    // 600 ms are left for 400: with its reserve there is no time for anybody else.
    bench.come(Rows { due: 9000 * MS, cost: 10 * MS, ..text(&["later"]) });
    assert_eq!(bench.next(0).unwrap(), "b");
    assert_eq!(bench.next(0).unwrap(), "later");
}
