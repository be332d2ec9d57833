use super::*;

const US: Duration = Duration::from_micros(1);

/// Two shapes, the second twice as long, measured at 1 and 4 rows of at most 6.
fn table() -> CostTable {
    let mut table = CostTable::new(6, [(10, 10), (20, 20), (40, 40)]);
    table.measure(10, 1, 100 * US);
    table.measure(10, 4, 280 * US);
    table.measure(20, 1, 200 * US);
    table
}

fn us(seconds: f64) -> f64 {
    (seconds * 1e8).round() / 100.0
}

#[test]
fn nothing_is_claimed_before_the_first_run() {
    let table = CostTable::new(8, [(0, 1)]);
    assert_eq!(table.run(0, 1), 0.0);
    assert!(table.measured().is_empty() && table.bests().is_empty());
    assert_eq!(table.curve(0, 1.0), Curve { best: 1, one: Duration::ZERO, full: Duration::ZERO });
}

#[test]
fn runs_between_and_beyond_the_measured_ones_are_worked_out() {
    let table = table();
    assert_eq!(table.grid(), [1, 2, 4, 6]);
    let runs = [1, 2, 3, 4, 6, 8].map(|rows| us(table.run(10, rows)));
    assert_eq!(runs, [100.0, 160.0, 220.0, 280.0, 420.0, 560.0]);
    assert_eq!(us(table.run(20, 3)), 600.0);
    assert_eq!(us(table.run(40, 1)), 400.0, "in proportion to the nearest shape");
}

#[test]
fn the_best_batch_is_the_smallest_that_gains_what_there_is_to_gain() {
    let mut table = CostTable::new(32, [(0, 1)]);
    let mut best = |costs: [u32; 6]| {
        for (rows, us) in [1, 2, 4, 8, 16, 32].into_iter().zip(costs) {
            table.measure(0, rows, us * rows as u32 * US);
        }
        table.bests()[0].rows
    };
    assert_eq!(best([100, 100, 100, 100, 100, 100]), 1);
    assert_eq!(best([100, 99, 98, 97, 96, 96]), 1, "four in a hundred are not worth a wait");
    assert_eq!(best([100, 90, 71, 70, 70, 70]), 8);
    assert_eq!(best([100, 80, 60, 90, 95, 99]), 4);
}

#[test]
fn what_is_around_a_run_is_shared_by_its_rows_where_it_counts() {
    let best = |network: [u32; 4], around: u32, preparing: u32| {
        let mut table = CostTable::new(8, [(0, 1)]);
        for (rows, us) in [1, 2, 4, 8].into_iter().zip(network) {
            table.measure(0, rows, us * rows as u32 * US);
        }
        (0..60).for_each(|_| {
            table.ran(around * US);
            table.prepared(preparing * US);
            table.learn(0, 1, 1, network[0] * US);
        });
        table.bests()[0].rows
    };
    assert_eq!(best([500; 4], 0, 20), 1);
    assert_eq!(best([500; 4], 15, 20), 4);
    assert_eq!(best([500; 4], 100, 20), 8);
    assert_eq!(best([9000; 4], 15, 20), 1, "a large network does not notice");
    assert_eq!(best([500; 4], 15, 5000), 1, "nor does who decodes a large picture");
    assert_eq!(best([500, 490, 485, 480], 0, 20), 1, "measurements differ by as much");
    assert_eq!(best([500, 510, 560, 600], 15, 20), 1);
    assert_eq!(best([100, 90, 71, 70], 15, 20), 8);
}

#[test]
fn larger_batches_are_tried_so_that_what_they_cost_is_not_what_it_was_at_the_start() {
    let mut table = CostTable::new(16, [(0, 1)]);
    for (rows, us) in [(1, 100), (2, 150), (4, 280), (8, 900), (16, 2000)] {
        table.measure(0, rows, us * US);
    }
    assert_eq!(table.bests()[0].rows, 4);
    let mut tried = Vec::new();
    for _ in 0..4096 {
        let rows = table.curve(0, 1.0).best;
        // The first runs of 8 and 16 rows were disturbed: in truth rows gain on and on.
        table.learn(0, 1, rows, (60 + 20 * rows as u32) * US);
        tried.push(rows);
    }
    assert_eq!(tried[..17].iter().filter(|rows| **rows == 8).count(), 1, "{:?}", &tried[..17]);
    assert_eq!(table.bests()[0].rows, 16);
    assert!(tried.iter().rev().take(1000).all(|rows| *rows == 16));
}

#[test]
fn a_change_of_speed_is_followed_within_tens_of_runs() {
    let mut table = table();
    (0..30).for_each(|_| table.learn(10, 10, 4, 840 * US));
    assert!((780.0..=840.0).contains(&us(table.run(10, 4))), "{}", table.run(10, 4));
    (0..30).for_each(|_| table.learn(10, 10, 4, 280 * US));
    assert!((280.0..=310.0).contains(&us(table.run(10, 4))), "{}", table.run(10, 4));
    let measured = table.measured()[1];
    assert_eq!((measured.rows, measured.runs), (4, 61));
    assert!(measured.p95_seconds_per_row >= measured.seconds_per_row);
}

#[test]
fn one_strange_run_changes_little() {
    let mut table = table();
    table.learn(10, 10, 1, Duration::from_secs(9));
    assert!(us(table.run(10, 1)) <= 130.1);
    table.learn(10, 10, 0, US);
    assert_eq!(table.measured().len(), 3, "a run of nothing teaches nothing");
}

#[test]
fn a_run_between_two_of_the_grid_corrects_both() {
    let mut table = table();
    table.measure(10, 2, 160 * US);
    (0..60).for_each(|_| table.learn(10, 10, 3, 440 * US));
    assert!((435.0..=440.0).contains(&us(table.run(10, 3))));
    assert_eq!(us(table.run(10, 1)), 100.0);
}

#[test]
fn a_shape_that_was_never_seen_is_learnt_and_the_oldest_of_too_many_is_forgotten() {
    let mut table = CostTable::new(4, []);
    assert_eq!(table.run(7, 1), 0.0);
    table.learn(7, 100, 1, 300 * US);
    assert_eq!(us(table.run(7, 1)), 300.0);
    assert_eq!(us(table.run(8, 1)), 300.0, "the last one seen is the best guess");
    table.learn(9, 100, 3, 600 * US);
    assert_eq!(us(table.run(9, 4)), 800.0, "in proportion to the run that there was");
    (0..40).for_each(|_| table.learn(9, 100, 1, 290 * US));
    (0..40).for_each(|_| table.learn(9, 100, 4, 400 * US));
    assert_eq!(table.curve(9, 1.0).best, 4, "it shares runs as others do");
    for number in 1000..1000 + MOST_MET {
        table.learn(number, 100, 1, 100 * US);
    }
    assert_eq!(table.shapes.len(), MOST_MET);
    assert!(!table.shapes.contains_key(&7) && !table.shapes.contains_key(&9));
    let mut profiled = CostTable::new(4, [(1, 10)]);
    (0..2 * MOST_MET).for_each(|number| profiled.learn(number, 100, 1, 100 * US));
    assert!(profiled.shapes.contains_key(&1), "what was profiled stays");
}
