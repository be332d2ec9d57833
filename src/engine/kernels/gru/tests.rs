//! The cell against a plain one in double precision.

use proptest::prelude::*;

use super::*;

/// Numbers in -`by`..`by` from a linear congruential generator (Knuth, MMIX).
fn noise(seed: u64, n: usize, by: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * by
    };
    (0..n).map(|_| next()).collect()
}

/// A cell and a batch for it.
struct Case {
    n_inputs: usize,
    n_hidden: usize,
    n_rows: usize,
    n_steps: usize,
    direction: Direction,
    input: Vec<f32>,
    recurrent: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// [steps, rows, inputs].
    x: Vec<f32>,
    start: Vec<f32>,
}

impl Case {
    fn new(seed: u64, [n_inputs, n_hidden, n_rows, n_steps]: [usize; 4]) -> Self {
        let spread = 2.0 / (n_hidden as f32).sqrt();
        Self {
            n_inputs,
            n_hidden,
            n_rows,
            n_steps,
            direction: if seed.is_multiple_of(2) { Direction::Forward } else { Direction::Backward },
            input: noise(seed, 3 * n_hidden * n_inputs, spread),
            recurrent: noise(seed + 1, 3 * n_hidden * n_hidden, spread),
            bias: (!seed.is_multiple_of(3)).then(|| noise(seed + 2, 6 * n_hidden, 0.5)),
            x: noise(seed + 3, n_steps * n_rows * n_inputs, 1.0),
            start: noise(seed + 4, n_rows * n_hidden, 1.0),
        }
    }

    fn pack(&self, form: Form) -> Gru {
        let (n_inputs, n_hidden) = (self.n_inputs, self.n_hidden);
        let bias = self.bias.as_deref();
        let weights = Weights { n_inputs, n_hidden, input: &self.input, recurrent: &self.recurrent, bias };
        Gru::pack(form, &weights).unwrap()
    }

    /// The states [steps, rows, hidden] and the last ones.
    fn run(&self, form: Form) -> (Vec<f32>, Vec<f32>) {
        let gru = self.pack(form);
        let n = self.n_rows * self.n_steps;
        // Every buffer ends at a protected page.
        let mut projected = Aligned::zeros(n * gru.n_projected());
        gru.project(&Aligned::of(&self.x), &mut projected);
        let mut data = Aligned::zeros(n * self.n_hidden);
        let mut last = Aligned::zeros(self.start.len());
        let (row_stride, step_stride) = (self.n_hidden, self.n_rows * self.n_hidden);
        gru.run(Sequence {
            n_rows: self.n_rows,
            n_steps: self.n_steps,
            direction: self.direction,
            gates: Gates::of(&gru, &projected, 0..n),
            start: &Aligned::of(&self.start),
            states: Some(States { data: &mut data, row_stride, step_stride }),
            last: &mut last,
        });
        (data.to_vec(), last.to_vec())
    }

    /// The same by the definition.
    fn plain(&self) -> (Vec<f64>, Vec<f64>) {
        let (h, n_in) = (self.n_hidden, self.n_inputs);
        let dot = |a: &[f32], b: &[f64]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum::<f64>();
        let bias = |i: usize| self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut states = vec![0.0; self.n_steps * self.n_rows * h];
        let mut last = Vec::new();
        for row in 0..self.n_rows {
            let mut state: Vec<f64> = self.start[row * h..][..h].iter().map(|x| f64::from(*x)).collect();
            for read in 0..self.n_steps {
                let step = if self.direction == Direction::Forward { read } else { self.n_steps - 1 - read };
                let x: Vec<f64> = self.x[(step * self.n_rows + row) * n_in..][..n_in]
                    .iter()
                    .map(|x| f64::from(*x))
                    .collect();
                let of_input = |i: usize| dot(&self.input[i * n_in..][..n_in], &x) + bias(i);
                let of_state = |i: usize| dot(&self.recurrent[i * h..][..h], &state) + bias(3 * h + i);
                let next = (0..h).map(|unit| {
                    let z = sigmoid(of_input(unit) + of_state(unit));
                    let r = sigmoid(of_input(h + unit) + of_state(h + unit));
                    let new = (of_input(2 * h + unit) + r * of_state(2 * h + unit)).tanh();
                    new + z * (state[unit] - new)
                });
                state = next.collect();
                states[(step * self.n_rows + row) * h..][..h].copy_from_slice(&state);
            }
            last.extend(state);
        }
        (states, last)
    }
}

fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

#[test]
fn this_processor_can_run_a_form() {
    // Without one, the other tests would prove nothing.
    if cfg!(target_arch = "x86_64") {
        assert!(!Form::all().is_empty(), "neither AVX-512 nor AVX2 with FMA");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_answers_as_the_definition_does(
        seed in 0u64..1 << 32, n_inputs in 1usize..40, n_hidden in 1usize..70,
        n_rows in 1usize..20, n_steps in 1usize..7,
    ) {
        let case = Case::new(seed, [n_inputs, n_hidden, n_rows, n_steps]);
        let (states, last) = case.plain();
        for form in Form::all() {
            let found = case.run(form);
            prop_assert!(distance(&found.0, &states) <= 5e-6, "{form}");
            prop_assert!(distance(&found.1, &last) <= 5e-6, "{form}");
        }
    }

    #[test]
    fn a_row_alone_equals_the_row_in_a_batch_to_the_last_bit(
        seed in 0u64..1 << 32, n_hidden in 1usize..150, n_rows in 1usize..34,
    ) {
        let case = Case::new(seed, [9, n_hidden, n_rows, 3]);
        for form in Form::all() {
            let together = case.run(form).1;
            for row in 0..n_rows {
                let of = |x: &[f32], n: usize| x[row * n..][..n].to_vec();
                let x = (0..3).flat_map(|step| of(&case.x[step * n_rows * 9..], 9)).collect();
                let start = of(&case.start, n_hidden);
                let alone = Case { n_rows: 1, x, start, ..Case::new(seed, [9, n_hidden, n_rows, 3]) };
                prop_assert_eq!(&alone.run(form).1, &of(&together, n_hidden), "{}, row {}", form, row);
            }
        }
    }
}

#[test]
fn gates_that_saturate_do_so_without_noise() {
    for form in Form::all() {
        for big in [50.0, 1e3, 1e30, f32::MAX, f32::INFINITY] {
            let mut case = Case::new(4, [1, 16, 1, 1]);
            case.recurrent.fill(0.0);
            case.bias = None;
            case.x = vec![1.0];
            // z = 0, n = 1: the new state is n.
            case.input = [vec![-big; 16], vec![0.0; 16], vec![big; 16]].concat();
            assert_eq!(case.run(form).1, [1.0; 16], "{form} at {big}");
            // z = 1: the old state stays.
            case.input = [vec![big; 16], vec![0.0; 16], vec![-big; 16]].concat();
            assert!(distance(&case.run(form).1, &case.plain().1) <= 1e-6, "{form} at {big}");
        }
    }
}

#[test]
fn not_a_number_stays_in_its_own_row() {
    for form in Form::all() {
        let mut case = Case::new(2, [3, 20, 9, 4]);
        let clean = case.run(form).1;
        case.x[(2 * 9 + 5) * 3] = f32::NAN;
        let touched = case.run(form).1;
        for row in 0..9 {
            let of = |states: &[f32]| states[row * 20..][..20].to_vec();
            if row == 5 {
                assert!(of(&touched).iter().all(|x| x.is_nan()), "{form}");
            } else {
                assert_eq!(of(&touched), of(&clean), "{form}, row {row}");
            }
        }
    }
}

#[test]
fn a_table_answers_as_the_projection_does() {
    for form in Form::all() {
        let case = Case::new(5, [7, 33, 1, 12]);
        let gru = std::sync::Arc::new(case.pack(form));
        let table = Table::new(std::sync::Arc::clone(&gru), 12, 1 << 20).unwrap();
        let mut projected = vec![0.0; 12 * gru.n_projected()];
        gru.project(&case.x, &mut projected);
        let run = |gates: Gates<'_>| {
            let (n_rows, n_steps, direction) = (2, gates.len() / 2, Direction::Forward);
            let mut last = vec![0.0; 66];
            let start = [0.0; 66];
            gru.run(Sequence {
                n_rows,
                n_steps,
                direction,
                gates,
                start: &start,
                states: None,
                last: &mut last,
            });
            last
        };
        let vector = |word: usize, to: &mut [f32]| to.copy_from_slice(&case.x[word * 7..][..7]);
        for words in [[3, 3, 0, 11], [3, 5, 6, 0], [11, 0, 3, 3]] {
            let found = run(table.gates(words.into_iter(), vector).unwrap());
            assert_eq!(found, run(Gates::of(&gru, &projected, words.into_iter())), "{form}: {words:?}");
        }
        assert_eq!(table.gates([1, 12].into_iter(), vector).unwrap_err(), 12);
        assert!(Table::new(gru, 12, 100).is_none());
    }
}

#[test]
fn threads_that_meet_words_at_once_see_whole_rows() {
    let Some(form) = Form::best() else { return };
    let case = Case::new(5, [16, 64, 1, 512]);
    let gru = std::sync::Arc::new(case.pack(form));
    let mut projected = vec![0.0; 512 * gru.n_projected()];
    gru.project(&case.x, &mut projected);
    let vector = |word: usize, to: &mut [f32]| to.copy_from_slice(&case.x[word * 16..][..16]);
    let last = |gates: Gates<'_>| {
        let (mut last, start, n_steps) = (vec![0.0; 64], [0.0; 64], gates.len());
        let direction = Direction::Forward;
        gru.run(Sequence {
            n_rows: 1,
            n_steps,
            direction,
            gates,
            start: &start,
            states: None,
            last: &mut last,
        });
        last
    };
    let words = |offset: usize| (0..512).map(move |i| (i * 37 + offset) % 512);
    let table = Table::new(std::sync::Arc::clone(&gru), 512, 1 << 24).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (table, last, projected, gru) = (&table, &last, &projected, &gru);
            scope.spawn(move || {
                for round in 0..4 {
                    let offset = thread * 100 + round;
                    let found = last(table.gates(words(offset), vector).unwrap());
                    assert_eq!(found, last(Gates::of(gru, projected, words(offset))));
                }
            });
        }
    });
}

#[test]
fn weights_of_contradicting_sizes_are_not_packed() {
    let Some(form) = Form::best() else { return };
    let good = Weights { n_inputs: 2, n_hidden: 3, input: &[0.0; 18], recurrent: &[0.0; 27], bias: None };
    assert!(Gru::pack(form, &good).is_some());
    assert!(Gru::pack(form, &Weights { input: &[0.0; 17], ..good }).is_none());
    assert!(Gru::pack(form, &Weights { recurrent: &[0.0; 28], ..good }).is_none());
    assert!(Gru::pack(form, &Weights { bias: Some(&[0.0; 9]), ..good }).is_none());
    assert!(Gru::pack(form, &Weights { n_hidden: usize::MAX, ..good }).is_none());
}
