//! Both cells against plain ones in double precision, in every form.

use proptest::prelude::*;

use super::{
    super::{Precision, bf16::Bf16},
    *,
};

/// Numbers in -`by`..`by`.
fn noise(seed: u64, n: usize, by: f32) -> Vec<f32> {
    super::super::noise::noise(seed, n).into_iter().map(|x| x * by).collect()
}

/// A cell and a batch for it.
#[derive(Clone)]
struct Case {
    kind: Kind,
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
    memory: Vec<f32>,
}

/// What a run answers: the states [steps, rows, hidden], the last ones, and the memory.
#[derive(Debug, PartialEq)]
struct Answer<T> {
    states: Vec<T>,
    last: Vec<T>,
    memory: Vec<T>,
}

const KINDS: [Kind; 2] = [Kind::Gru, Kind::Lstm];

impl Case {
    fn new(kind: Kind, seed: u64, [n_inputs, n_hidden, n_rows, n_steps]: [usize; 4]) -> Self {
        let spread = 2.0 / (n_hidden as f32).sqrt();
        let n_gates = kind.n_gates() * n_hidden;
        Self {
            kind,
            n_inputs,
            n_hidden,
            n_rows,
            n_steps,
            direction: if seed.is_multiple_of(2) { Direction::Forward } else { Direction::Backward },
            input: noise(seed, n_gates * n_inputs, spread),
            recurrent: noise(seed + 1, n_gates * n_hidden, spread),
            bias: (!seed.is_multiple_of(3)).then(|| noise(seed + 2, 2 * n_gates, 0.5)),
            x: noise(seed + 3, n_steps * n_rows * n_inputs, 1.0),
            start: noise(seed + 4, n_rows * n_hidden, 1.0),
            memory: if kind == Kind::Lstm { noise(seed + 5, n_rows * n_hidden, 2.0) } else { Vec::new() },
        }
    }

    fn pack(&self, form: Form) -> Cell {
        let &Self { kind, n_inputs, n_hidden, .. } = self;
        let bias = self.bias.as_deref();
        let (input, recurrent) = (&self.input, &self.recurrent);
        Cell::pack(form, &Weights { kind, n_inputs, n_hidden, input, recurrent, bias }).unwrap()
    }

    fn run(&self, form: Form) -> Answer<f32> {
        let cell = self.pack(form);
        let n = self.n_rows * self.n_steps;
        // Every buffer ends at a protected page.
        let mut projected = Aligned::zeros(n * cell.n_projected());
        cell.project(&Aligned::of(&self.x), &mut projected);
        let mut data = Aligned::zeros(n * self.n_hidden);
        let mut last = Aligned::zeros(self.start.len());
        let mut memory = Aligned::of(&self.memory);
        let (row_stride, step_stride) = (self.n_hidden, self.n_rows * self.n_hidden);
        cell.run(Sequence {
            n_rows: self.n_rows,
            n_steps: self.n_steps,
            direction: self.direction,
            gates: Gates::of(&cell, &projected, 0..n),
            start: &Aligned::of(&self.start),
            memory: &mut memory,
            states: Some(States { data: &mut data, row_stride, step_stride }),
            last: &mut last,
        });
        Answer { states: data.to_vec(), last: last.to_vec(), memory: memory.to_vec() }
    }

    /// The same by the definition, the factors of its products rounded as a form of `precision` does.
    fn plain(&self, precision: Precision) -> Answer<f64> {
        let (h, n_in) = (self.n_hidden, self.n_inputs);
        let factor = |x: f32| match precision {
            Precision::F32 => f64::from(x),
            Precision::Bf16 => f64::from(Bf16::of(x).wide()),
        };
        let dot = |a: &[f32], b: &[f64]| a.iter().zip(b).map(|(a, b)| factor(*a) * b).sum::<f64>();
        let n_gates = self.kind.n_gates() * h;
        let bias = |i: usize| self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let mut answer =
            Answer { states: vec![0.0; self.n_steps * self.n_rows * h], last: vec![], memory: vec![] };
        for row in 0..self.n_rows {
            let mut state = wide(&self.start[row * h..][..h]);
            let mut memory = wide(self.memory.get(row * h..(row + 1) * h).unwrap_or_default());
            for read in 0..self.n_steps {
                let step = if self.direction == Direction::Forward { read } else { self.n_steps - 1 - read };
                let x = &self.x[(step * self.n_rows + row) * n_in..][..n_in];
                let x: Vec<f64> = x.iter().map(|x| factor(*x)).collect();
                let factors: Vec<f64> = state.iter().map(|x| factor(*x as f32)).collect();
                let of_input = |i: usize| dot(&self.input[i * n_in..][..n_in], &x) + bias(i);
                let of_state = |i: usize| dot(&self.recurrent[i * h..][..h], &factors) + bias(n_gates + i);
                let gate = |gate: usize, unit: usize| of_input(gate * h + unit) + of_state(gate * h + unit);
                state = match self.kind {
                    Kind::Gru => (0..h)
                        .map(|unit| {
                            let (z, r) = (sigmoid(gate(0, unit)), sigmoid(gate(1, unit)));
                            let new = (of_input(2 * h + unit) + r * of_state(2 * h + unit)).tanh();
                            new + z * (state[unit] - new)
                        })
                        .collect(),
                    Kind::Lstm => (0..h)
                        .map(|unit| {
                            let [i, o, f] = [0, 1, 2].map(|at| sigmoid(gate(at, unit)));
                            memory[unit] = f * memory[unit] + i * gate(3, unit).tanh();
                            o * memory[unit].tanh()
                        })
                        .collect(),
                };
                answer.states[(step * self.n_rows + row) * h..][..h].copy_from_slice(&state);
            }
            answer.last.extend(state);
            answer.memory.extend(memory);
        }
        answer
    }

    /// The row `row` of the batch as a batch of its own.
    fn alone(&self, row: usize) -> Self {
        let of = |x: &[f32], n: usize| x.get(row * n..(row + 1) * n).unwrap_or_default().to_vec();
        let x = self.x.chunks_exact(self.n_rows * self.n_inputs).flat_map(|step| of(step, self.n_inputs));
        let x = x.collect();
        let (start, memory) = (of(&self.start, self.n_hidden), of(&self.memory, self.n_hidden));
        Self { n_rows: 1, x, start, memory, ..self.clone() }
    }
}

impl Answer<f32> {
    fn distance(&self, expected: &Answer<f64>) -> f64 {
        let pairs = [
            (&self.states, &expected.states),
            (&self.last, &expected.last),
            (&self.memory, &expected.memory),
        ];
        pairs.into_iter().map(|(found, expected)| distance(found, expected)).fold(0.0, f64::max)
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

/// How far a form may be from the definition whose factors are rounded as its are. In bf16 a state that
/// lies between two numbers may be rounded the other way, by 1/256 of itself.
fn bound(form: Form) -> f64 {
    match form.precision() {
        Precision::F32 => 5e-6,
        Precision::Bf16 => 3e-3,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_answers_as_the_definition_does(
        seed in 0u64..1 << 32, n_inputs in 1usize..70, n_hidden in 1usize..70,
        n_rows in 1usize..36, n_steps in 1usize..7,
    ) {
        for kind in KINDS {
            let case = Case::new(kind, seed, [n_inputs, n_hidden, n_rows, n_steps]);
            for form in Form::all() {
                let expected = case.plain(form.precision());
                let far = case.run(form).distance(&expected);
                prop_assert!(far <= bound(form), "{kind:?} in {form}: {far}");
            }
        }
    }

    /// After one step no state was rounded that was computed, so even bf16 has to agree closely.
    #[test]
    fn one_step_answers_as_the_definition_does(
        seed in 0u64..1 << 32, n_inputs in 1usize..150, n_hidden in 1usize..150, n_rows in 1usize..20,
    ) {
        for kind in KINDS {
            let case = Case::new(kind, seed, [n_inputs, n_hidden, n_rows, 1]);
            for form in Form::all() {
                let far = case.run(form).distance(&case.plain(form.precision()));
                prop_assert!(far <= 5e-6, "{kind:?} in {form}: {far}");
            }
        }
    }

    #[test]
    fn a_row_alone_equals_the_row_in_a_batch_to_the_last_bit(
        seed in 0u64..1 << 32, n_hidden in 1usize..150, n_rows in 1usize..40,
    ) {
        for kind in KINDS {
            let case = Case::new(kind, seed, [9, n_hidden, n_rows, 3]);
            for form in Form::all() {
                let together = case.run(form);
                for row in 0..n_rows {
                    let alone = case.alone(row).run(form);
                    let of = |x: &[f32]| x.get(row * n_hidden..(row + 1) * n_hidden).unwrap_or_default().to_vec();
                    prop_assert_eq!(&alone.last, &of(&together.last), "{}, row {}", form, row);
                    prop_assert_eq!(&alone.memory, &of(&together.memory), "{}, row {}", form, row);
                }
            }
        }
    }
}

#[test]
fn gates_that_saturate_do_so_without_noise() {
    for form in Form::all() {
        for big in [50.0, 1e3, 1e30, f32::MAX, f32::INFINITY] {
            let mut case = Case::new(Kind::Gru, 4, [1, 16, 1, 1]);
            case.recurrent.fill(0.0);
            case.bias = None;
            case.x = vec![1.0];
            // z = 0, n = 1: the new state is n.
            case.input = [vec![-big; 16], vec![0.0; 16], vec![big; 16]].concat();
            assert_eq!(case.run(form).last, [1.0; 16], "{form} at {big}");
            // z = 1: the old state stays.
            case.input = [vec![big; 16], vec![0.0; 16], vec![-big; 16]].concat();
            assert!(
                distance(&case.run(form).last, &case.plain(Precision::F32).last) <= 1e-6,
                "{form} at {big}"
            );
            let mut case = Case::new(Kind::Lstm, 4, [1, 16, 1, 1]);
            case.recurrent.fill(0.0);
            case.bias = None;
            case.x = vec![1.0];
            // i = 1, o = 1, f = 0, g = -1: what was remembered is forgotten.
            case.input = [vec![big; 32], vec![-big; 32]].concat();
            assert_eq!(case.run(form).memory, [-1.0; 16], "{form} at {big}");
            // i = 0, o = 0, f = 1: it stays, and nothing of it is told.
            case.input = [vec![-big; 32], vec![big; 32]].concat();
            let kept = case.run(form);
            assert!(distance(&kept.memory, &case.plain(Precision::F32).memory) <= 1e-6, "{form} at {big}");
            assert!(kept.last.iter().all(|x| x.abs() <= 1e-15), "{form} at {big}");
        }
    }
}

#[test]
fn a_state_beyond_all_bounds_stays_in_its_own_unit() {
    for form in Form::all() {
        // Where their number is odd, the last one makes a pair with such a number.
        for (kind, n_hidden) in KINDS.into_iter().flat_map(|kind| [(kind, 20), (kind, 21)]) {
            // Inputs that saturate every gate leave the numbers that fill up a register without meaning.
            let mut case = Case::new(kind, 8, [3, n_hidden, 2, 4]);
            case.x.fill(f32::INFINITY);
            case.input.iter_mut().for_each(|weight| *weight = weight.abs() + 1e-3);
            let found = case.run(form);
            let are_finite = found.last.iter().chain(&found.memory).all(|x| x.is_finite());
            assert!(are_finite, "{kind:?} of {n_hidden} in {form}");
        }
    }
}

#[test]
fn not_a_number_stays_in_its_own_row() {
    for form in Form::all() {
        for kind in KINDS {
            let mut case = Case::new(kind, 2, [3, 20, 9, 4]);
            let clean = case.run(form).last;
            case.x[(2 * 9 + 5) * 3] = f32::NAN;
            let touched = case.run(form).last;
            for row in 0..9 {
                let of = |states: &[f32]| states[row * 20..][..20].to_vec();
                if row == 5 {
                    assert!(of(&touched).iter().all(|x| x.is_nan()), "{kind:?} in {form}");
                } else {
                    assert_eq!(of(&touched), of(&clean), "{kind:?} in {form}, row {row}");
                }
            }
        }
    }
}

#[test]
fn a_cell_without_inputs_runs_on_its_biases() {
    for form in Form::all() {
        for kind in KINDS {
            let case = Case::new(kind, 7, [0, 5, 3, 4]);
            let far = case.run(form).distance(&case.plain(form.precision()));
            assert!(far <= bound(form), "{kind:?} in {form}: {far}");
        }
    }
}

#[test]
fn a_table_answers_as_the_projection_does() {
    for form in Form::all() {
        let case = Case::new(Kind::Gru, 5, [7, 33, 1, 12]);
        let cell = std::sync::Arc::new(case.pack(form));
        let table = Table::new(std::sync::Arc::clone(&cell), 12, 1 << 20).unwrap();
        let mut projected = vec![0.0; 12 * cell.n_projected()];
        cell.project(&case.x, &mut projected);
        let run = |gates: Gates<'_>| {
            let (n_rows, n_steps, direction) = (2, gates.len() / 2, Direction::Forward);
            let mut last = vec![0.0; 66];
            let start = [0.0; 66];
            cell.run(Sequence {
                n_rows,
                n_steps,
                direction,
                gates,
                start: &start,
                memory: &mut [],
                states: None,
                last: &mut last,
            });
            last
        };
        let vector = |word: usize, to: &mut [f32]| to.copy_from_slice(&case.x[word * 7..][..7]);
        for words in [[3, 3, 0, 11], [3, 5, 6, 0], [11, 0, 3, 3]] {
            let found = run(table.gates(words.into_iter(), vector).unwrap());
            assert_eq!(found, run(Gates::of(&cell, &projected, words.into_iter())), "{form}: {words:?}");
        }
        assert_eq!(table.gates([1, 12].into_iter(), vector).unwrap_err(), 12);
        assert!(Table::new(cell, 12, 100).is_none());
    }
}

#[test]
fn threads_that_meet_words_at_once_see_whole_rows() {
    let Some(form) = Form::best(Precision::F32) else { return };
    let case = Case::new(Kind::Gru, 5, [16, 64, 1, 512]);
    let cell = std::sync::Arc::new(case.pack(form));
    let mut projected = vec![0.0; 512 * cell.n_projected()];
    cell.project(&case.x, &mut projected);
    let vector = |word: usize, to: &mut [f32]| to.copy_from_slice(&case.x[word * 16..][..16]);
    let last = |gates: Gates<'_>| {
        let (mut last, start, n_steps) = (vec![0.0; 64], [0.0; 64], gates.len());
        let direction = Direction::Forward;
        cell.run(Sequence {
            n_rows: 1,
            n_steps,
            direction,
            gates,
            start: &start,
            memory: &mut [],
            states: None,
            last: &mut last,
        });
        last
    };
    let words = |offset: usize| (0..512).map(move |i| (i * 37 + offset) % 512);
    let table = Table::new(std::sync::Arc::clone(&cell), 512, 1 << 24).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (table, last, projected, cell) = (&table, &last, &projected, &cell);
            scope.spawn(move || {
                for round in 0..4 {
                    let offset = thread * 100 + round;
                    let found = last(table.gates(words(offset), vector).unwrap());
                    assert_eq!(found, last(Gates::of(cell, projected, words(offset))));
                }
            });
        }
    });
}

#[test]
fn weights_of_contradicting_sizes_are_not_packed() {
    let Some(form) = Form::best(Precision::F32) else { return };
    let good = Weights {
        kind: Kind::Gru,
        n_inputs: 2,
        n_hidden: 3,
        input: &[0.0; 18],
        recurrent: &[0.0; 27],
        bias: None,
    };
    assert!(Cell::pack(form, &good).is_some());
    assert!(Cell::pack(form, &Weights { kind: Kind::Lstm, ..good }).is_none());
    assert!(Cell::pack(form, &Weights { input: &[0.0; 17], ..good }).is_none());
    assert!(Cell::pack(form, &Weights { recurrent: &[0.0; 28], ..good }).is_none());
    assert!(Cell::pack(form, &Weights { bias: Some(&[0.0; 9]), ..good }).is_none());
    assert!(Cell::pack(form, &Weights { n_hidden: usize::MAX, ..good }).is_none());
}
