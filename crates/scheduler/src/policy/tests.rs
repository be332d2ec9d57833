//! The policy with numbers that the tests make up.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A group whose runs of eight save half of what their rows would cost alone.
fn group(epoch: Instant) -> GroupView {
    GroupView {
        queued: 1,
        class: Class::Interactive,
        due: epoch + 100 * MS,
        arrived: epoch,
        since: epoch,
        balance: Balance::Fast,
        arriving: Some(Arriving { last: epoch, gap: MS }),
        curve: Curve { best: 8, one: 2 * MS, full: 8 * MS },
        max_rows: 32,
    }
}

fn ask(now: Instant, workers: usize, groups: &[GroupView]) -> Decision {
    MeasuredPolicy.decide(&View { now, workers, groups })
}

fn measured(now: Instant, groups: &[GroupView]) -> Decision {
    ask(now, 1, groups)
}

#[test]
fn workers_share_a_short_queue_and_fill_their_batches_from_a_long_one() {
    let epoch = Instant::now();
    let burst = [GroupView { queued: 6, ..group(epoch) }];
    assert_eq!(ask(epoch, 2, &burst), Decision::Run { group: 0, rows: 3 });
    assert_eq!(ask(epoch, 1, &burst), Decision::Run { group: 0, rows: 6 });
    let beside_others = [burst[0], GroupView { queued: 9, due: epoch + 200 * MS, ..group(epoch) }];
    assert_eq!(ask(epoch, 2, &beside_others), Decision::Run { group: 0, rows: 6 });
    let flood = [GroupView { queued: 500, ..group(epoch) }];
    assert_eq!(ask(epoch, 4, &flood), Decision::Run { group: 0, rows: 8 });
}

#[test]
fn a_network_that_gains_nothing_runs_row_by_row() {
    let epoch = Instant::now();
    let curve = Curve { best: 1, one: MS, full: MS };
    let view = [GroupView { queued: 9, curve, balance: Balance::Cheap, ..group(epoch) }];
    assert_eq!(measured(epoch, &view), Decision::Run { group: 0, rows: 1 });
}

#[test]
fn nobody_lingers_where_that_saves_next_to_nothing() {
    let epoch = Instant::now();
    let with = |full| {
        let curve = Curve { best: 4, one: 10 * MS, full };
        measured(epoch, &[GroupView { curve, balance: Balance::Cheap, ..group(epoch) }])
    };
    assert_eq!(with(39 * MS), Decision::Run { group: 0, rows: 1 });
    assert!(matches!(with(36 * MS), Decision::Linger { .. }));
}

#[test]
fn a_batch_shrinks_until_the_earliest_deadline_holds() {
    let epoch = Instant::now();
    let at = |due| measured(epoch, &[GroupView { queued: 8, due: epoch + due, ..group(epoch) }]);
    assert_eq!(at(8 * MS), Decision::Run { group: 0, rows: 8 });
    assert_eq!(at(5 * MS), Decision::Run { group: 0, rows: 4 });
    assert_eq!(at(Duration::ZERO), Decision::Run { group: 0, rows: 1 });
}

#[test]
fn batch_work_runs_from_idle_time_until_half_its_own_is_gone() {
    let epoch = Instant::now();
    let batch = GroupView { class: Class::Batch, due: epoch + 60 * MS, ..group(epoch) };
    let both = [group(epoch), batch];
    assert_eq!(measured(epoch, &both[1..]), Decision::Run { group: 0, rows: 1 });
    assert_eq!(measured(epoch + 29 * MS, &both), Decision::Run { group: 0, rows: 1 });
    assert_eq!(measured(epoch + 30 * MS, &both), Decision::Run { group: 1, rows: 1 });
}

#[test]
fn who_pays_less_lingers_for_others_that_are_expected_in_time() {
    let epoch = Instant::now();
    let with = |balance, gap| {
        let arriving = Some(Arriving { last: epoch, gap });
        measured(epoch + MS, &[GroupView { balance, arriving, ..group(epoch) }])
    };
    let run = Decision::Run { group: 0, rows: 1 };
    assert_eq!(with(Balance::Fast, MS), run);
    assert_eq!(with(Balance::Balanced, MS / 2), Decision::Linger { until: epoch + 3 * MS / 2 });
    assert_eq!(with(Balance::Balanced, 2 * MS), run, "nobody would come");
    assert_eq!(with(Balance::Cheap, 2 * MS), Decision::Linger { until: epoch + 6 * MS }, "three of these");
    assert_eq!(with(Balance::Cheap, 20 * MS), Decision::Linger { until: epoch + 5 * MS }, "room for one");
    assert_eq!(with(Balance::Cheap, 30 * MS), run);
    let unknown = GroupView { balance: Balance::Cheap, arriving: None, ..group(epoch) };
    assert_eq!(measured(epoch, &[unknown]), run, "nobody is expected");
    let silent = GroupView { balance: Balance::Cheap, ..group(epoch) };
    assert_eq!(measured(epoch + 3 * MS, &[silent]), run, "nobody has come");
    let full = GroupView { queued: 8, balance: Balance::Cheap, ..group(epoch) };
    assert_eq!(measured(epoch, &[full]), Decision::Run { group: 0, rows: 8 });
    let urgent = GroupView { due: epoch + 16 * MS, balance: Balance::Cheap, ..group(epoch) };
    assert_eq!(measured(epoch, &[urgent]), run, "a full run would not fit twice");
}

#[test]
fn nobody_waits_behind_those_who_are_held() {
    let epoch = Instant::now();
    let held = GroupView { balance: Balance::Cheap, due: epoch + 90 * MS, ..group(epoch) };
    let batch = GroupView { class: Class::Batch, ..group(epoch) };
    assert_eq!(measured(epoch, &[held, group(epoch)]), Decision::Run { group: 1, rows: 1 });
    assert_eq!(measured(epoch, &[held, batch]), Decision::Run { group: 1, rows: 1 });
}

fn groups(epoch: Instant) -> impl Strategy<Value = Vec<GroupView>> {
    let times = (0u64..200, 1u64..300, 0u64..50);
    let kinds = (prop::sample::select(&Class::ALL), prop::sample::select(&Balance::ALL));
    let runs = (1usize..33, 1usize..40, 1u64..20, 1u64..60);
    let one = (0usize..100, times, kinds, runs).prop_map(move |(queued, times, kinds, runs)| {
        let (age, left, gap) = times;
        let (best, max_rows, one, full) = runs;
        let arrived = epoch + MS * (200 - age) as u32;
        GroupView {
            queued,
            class: kinds.0,
            due: epoch + MS * (150 + left) as u32,
            arrived,
            since: arrived + MS * (age / 2) as u32,
            balance: kinds.1,
            arriving: (gap > 5).then(|| Arriving { last: arrived, gap: MS * (gap - 5) as u32 }),
            curve: Curve { best: best.min(max_rows), one: MS * one as u32, full: MS * (one + full) as u32 },
            max_rows,
        }
    });
    prop::collection::vec(one, 0..8)
}

proptest! {
    #[test]
    fn under_fast_no_worker_rests_or_waits_while_there_is_work(mut view in groups(Instant::now()), workers in 1usize..9) {
        view.iter_mut().for_each(|group| group.balance = Balance::Fast);
        let now = view.first().map_or_else(Instant::now, |group| group.since);
        let work = view.iter().any(|group| group.queued > 0);
        let decision = ask(now, workers, &view);
        prop_assert_eq!(matches!(decision, Decision::Run { .. }), work);
        prop_assert_eq!(decision == Decision::Rest, !work);
    }

    #[test]
    fn a_run_keeps_every_limit(epoch in Just(Instant::now()), later in 0u32..400, workers in 1usize..9, view in groups(Instant::now())) {
        if let Decision::Run { group, rows } = ask(epoch + MS * later, workers, &view) {
            prop_assert!(rows >= 1);
            prop_assert!(rows <= view[group].max_rows);
            prop_assert!(rows <= view[group].queued);
            prop_assert!(rows <= view[group].curve.best.max(1));
        }
    }

    #[test]
    fn no_deadline_order_is_inverted_within_a_class(epoch in Just(Instant::now()), later in 0u32..400, view in groups(Instant::now())) {
        let now = epoch + MS * later;
        if let Decision::Run { group, .. } = measured(now, &view) {
            let class = class_of(&view[group], now);
            let others = view.iter().filter(|other| other.queued > 0 && class_of(other, now) == class);
            for other in others.filter(|other| other.due < view[group].due) {
                prop_assert!(lingers(other, now).is_some(), "only who agreed to wait is passed");
            }
            let first_class = |other: &GroupView| class_of(other, now) == Class::Interactive;
            let ready = |other: &GroupView| other.queued > 0 && lingers(other, now).is_none();
            if class == Class::Batch {
                prop_assert!(!view.iter().any(|other| first_class(other) && ready(other)));
            }
        }
    }

    #[test]
    fn nobody_is_held_beyond_what_they_agreed_to(epoch in Just(Instant::now()), later in 0u32..400, view in groups(Instant::now())) {
        let now = epoch + MS * later;
        if let Decision::Linger { until } = measured(now, &view) {
            prop_assert!(until > now);
            for group in view.iter().filter(|group| group.queued > 0) {
                prop_assert!(group.balance != Balance::Fast);
                let whole = group.due.saturating_duration_since(group.since);
                prop_assert!(until <= group.since + (whole / 4).max(group.curve.one));
            }
        }
    }
}
