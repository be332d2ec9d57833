use super::*;

const MS: Duration = Duration::from_millis(1);

/// A picture of that many pixels: 10 ns each, as its task guesses.
fn picture(units: u64) -> Workload {
    Workload { kind: 1, units, guess: Duration::from_nanos(10 * units) }
}

fn ms(estimate: Estimate) -> f64 {
    (estimate.seconds * 1e5).round() / 100.0
}

#[test]
fn what_was_never_seen_is_guessed_and_no_evidence() {
    let handling = Handling::default();
    let estimate = handling.estimate(picture(1_000_000), Instant::now());
    assert_eq!((ms(estimate), estimate.evidence), (10.0, Evidence::Extrapolated));
    assert_eq!(estimate.measured(), 0.0);
}

#[test]
fn one_dear_input_says_little_of_others() {
    let (mut handling, now) = (Handling::default(), Instant::now());
    // Of 58 bytes and 25 million pixels, and a hundred times as dear as was guessed.
    handling.learn(picture(25_000_000), 58, 25.0, now);
    for pixels in [64 * 48, 1_000_000, 4_000_000] {
        let estimate = handling.estimate(picture(pixels), now);
        assert_eq!(estimate.evidence, Evidence::Extrapolated);
        assert!(estimate.seconds <= FURTHEST * picture(pixels).guess.as_secs_f64());
    }
    let other = Workload { kind: 2, ..picture(25_000_000) };
    assert_eq!(handling.estimate(other, now).seconds, other.guess.as_secs_f64(), "another format");
    // A thumbnail first, whose time is that of everything around it.
    handling.learn(picture(1000), 662, 0.001, now);
    assert!(handling.estimate(picture(12_000), now).seconds <= FURTHEST * 120e-6);
}

#[test]
fn a_measurement_is_evidence_of_its_size_until_it_is_old() {
    let (mut handling, now) = (Handling::default(), Instant::now());
    handling.learn(picture(1_000_000), 1000, 0.040, now);
    let at = |age: Duration, units: u64| handling.estimate(picture(units), now + age);
    assert_eq!(
        (ms(at(Duration::ZERO, 1_000_000)), at(FRESH - MS, 1_000_000).evidence),
        (40.0, Evidence::Measured)
    );
    assert_eq!(ms(at(MS, 750_000)), 30.0, "in proportion");
    assert_eq!(at(MS, 4_000_000).evidence, Evidence::Extrapolated);
    assert_eq!(at(FRESH, 1_000_000).evidence, Evidence::Extrapolated);
}

#[test]
fn what_changes_is_followed_within_a_dozen_and_at_once_after_a_pause() {
    let (mut handling, now) = (Handling::default(), Instant::now());
    (0..20).for_each(|_| handling.learn(picture(1_000_000), 1000, 0.400, now));
    (0..12).for_each(|_| handling.learn(picture(1_000_000), 1000, 0.010, now));
    assert!(ms(handling.estimate(picture(1_000_000), now)) < 30.0);
    handling.learn(picture(1_000_000), 1000, 0.400, now);
    assert!(ms(handling.estimate(picture(1_000_000), now)) < 60.0, "no single one counts as more than a few");
    let (mut handling, later) = (Handling::default(), now + FRESH);
    handling.learn(picture(1_000_000), 1000, 0.400, now);
    handling.learn(picture(1_000_000), 1000, 0.010, later);
    assert!(ms(handling.estimate(picture(1_000_000), later)) < 60.0);
}

#[test]
fn inputs_that_fail_do_not_make_others_look_cheap() {
    let (mut handling, now) = (Handling::default(), Instant::now());
    handling.learn_failed(picture(1_000_000), 1e-6, now);
    assert_eq!(ms(handling.estimate(picture(1_000_000), now)), 10.0);
    handling.learn(picture(1_000_000), 1000, 0.010, now);
    (0..20).for_each(|_| handling.learn_failed(picture(1_000_000), 1e-6, now));
    assert_eq!(ms(handling.estimate(picture(1_000_000), now)), 10.0);
    (0..30).for_each(|_| handling.learn_failed(picture(1_000_000), 0.100, now));
    assert!(ms(handling.estimate(picture(1_000_000), now)) > 40.0, "but what they cost is seen");
}

#[test]
fn bytes_are_a_lower_bound_that_fades() {
    let (mut handling, mut now) = (Handling::default(), Instant::now());
    handling.learn(picture(25_000_000), 1000, 0.400, now);
    assert!(handling.least(1000, now) <= 0.041, "one alone says little");
    assert_eq!(handling.least(100_000, now), 0.0, "and nothing of other sizes");
    (0..100).for_each(|_| {
        now += MS;
        handling.learn(picture(25_000_000), 1000, 0.400, now);
    });
    assert!(handling.least(1000, now) > 0.300);
    handling.learn(picture(1000), 1000, 0.001, now);
    assert!(handling.least(1000, now) <= 0.001, "the least of them");
    (0..100).for_each(|_| handling.learn(picture(25_000_000), 1000, 0.400, now));
    assert!(handling.least(1000, now + Duration::from_secs(5)) < 0.001);
}

#[test]
fn one_of_a_kind_and_size_is_on_trial_at_a_time() {
    let mut handling = Handling::default();
    assert!(handling.begin_trial(picture(1000)));
    assert!(!handling.begin_trial(picture(1001)));
    assert!(
        handling.begin_trial(picture(100_000)) && handling.begin_trial(Workload { kind: 2, ..picture(1000) })
    );
    handling.end_trial(picture(1000));
    assert!(handling.begin_trial(picture(1000)));
}
