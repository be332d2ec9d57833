//! Which rows linger until others share their run, and for how long.

use super::*;

#[test]
fn cheap_rows_that_come_one_by_one_share_runs() {
    let mut bench = Bench::new(1);
    let mut runs = Vec::new();
    for _ in 0..50 {
        bench.come_lingering(Balance::Cheap);
        runs.extend(bench.work().ok());
        bench.now += 5 * MS;
    }
    let (rest, waited) = bench.finish();
    assert_eq!(runs[..2], [1, 8], "the first knows of nobody, those after it fill a run: {runs:?}");
    assert_eq!(runs.iter().chain(&rest).sum::<usize>(), 50);
    assert!(runs.len() + rest.len() <= 8, "{runs:?} {rest:?}");
    assert!(waited <= 15 * MS, "nobody else comes: {waited:?}");
}

#[test]
fn who_is_alone_learns_not_to_wait() {
    let mut bench = Bench::new(1);
    let mut longest = Duration::ZERO;
    let mut whole = Duration::ZERO;
    for _ in 0..100 {
        bench.come_lingering(Balance::Cheap);
        let (runs, waited) = bench.finish();
        assert_eq!(runs, [1]);
        longest = longest.max(waited);
        whole += waited;
        // One who asks again once there is an answer.
        bench.now += 20 * MS;
    }
    assert!(longest < DEADLINE / 4, "{longest:?}");
    assert!(whole < 100 * 10 * MS, "half of the time between two questions, on average: {whole:?}");
}

#[test]
fn who_agreed_to_wait_a_run_is_joined_by_who_comes_within_it() {
    let mut bench = Bench::new(1);
    let one = bench.costs.curve(1, 1.0).one;
    for _ in 0..3 {
        bench.come_lingering(Balance::Fast);
        assert_eq!(bench.work(), Ok(1), "a row in haste runs at once");
        bench.now += one / 4;
    }
    bench.come_lingering(Balance::Balanced);
    let until = bench.work().unwrap_err().unwrap();
    assert!(until > bench.now && until <= bench.now + one);
    bench.now += one / 4;
    bench.come_lingering(Balance::Fast);
    assert_eq!(bench.work(), Ok(2));
    bench.now += 100 * MS;
    bench.come_lingering(Balance::Balanced);
    let (runs, waited) = bench.finish();
    assert_eq!(runs, [1]);
    assert!(waited <= one, "{waited:?}");
}
