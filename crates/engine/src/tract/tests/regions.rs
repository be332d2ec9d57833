//! Regions of random networks: they answer as stock tract does, whatever leaves them and comes back.

use std::thread;

use lepton_testkit::onnx::{Axis, Element, Graph, Node};

use super::{
    kernels::{bound, in_form, nodes, relative},
    *,
};

/// One operator of a random network, and which value before it it reads: the first that fits, from a
/// place on.
#[derive(Debug, Clone)]
enum Asked {
    Conv {
        n_outputs: i64,
        side: i64,
        stride: i64,
    },
    Add,
    Relu,
    /// An operator that no kernel knows.
    Sigmoid,
    /// A convolution of squares of pixels that became channels.
    Unshuffled {
        n_outputs: i64,
        side: i64,
        colours_last: bool,
    },
    /// The mean over pixels, and one or two products with a matrix and a bias: an output of its own.
    Head {
        n_answers: i64,
        n_hidden: Option<i64>,
        written: Written,
    },
}

fn asked() -> impl Strategy<Value = Asked> {
    let n_outputs = || prop::sample::select(vec![8i64, 9, 16]);
    prop_oneof![
        4 => (n_outputs(), prop::sample::select(vec![1i64, 3]), 1i64..3)
            .prop_map(|(n_outputs, side, stride)| Asked::Conv { n_outputs, side, stride }),
        4 => Just(Asked::Add),
        4 => Just(Asked::Relu),
        1 => Just(Asked::Sigmoid),
        1 => (n_outputs(), prop::sample::select(vec![1i64, 3]), any::<bool>())
            .prop_map(|(n_outputs, side, colours_last)| Asked::Unshuffled { n_outputs, side, colours_last }),
        1 => (1i64..12, prop::option::of(1i64..20), any::<bool>()).prop_map(|(n_answers, n_hidden, pool)| {
            let written = if pool { Written::PoolFlattenGemm } else { Written::MeanMatMulAdd };
            Asked::Head { n_answers, n_hidden, written }
        }),
    ]
}

/// How exporters write a head.
#[derive(Debug, Clone, Copy)]
enum Written {
    PoolFlattenGemm,
    MeanMatMulAdd,
}

/// Maps in a network: their name, and how many channels, rows and columns they have.
#[derive(Debug, Clone)]
struct Maps {
    name: String,
    n_channels: i64,
    sides: [i64; 2],
}

/// A network in the making.
struct Network {
    graph: Graph,
    maps: Vec<Maps>,
    n_weights: u64,
    n_names: usize,
}

impl Network {
    fn new(input: [i64; 3]) -> Self {
        let [n_channels, height, width] = input;
        let axes = [Axis::Named("batch"), Axis::Of(n_channels), Axis::Of(height), Axis::Of(width)];
        let maps = Maps { name: "x".to_owned(), n_channels, sides: [height, width] };
        let graph = Graph::default().input("x", Element::Float, &axes);
        Self { graph, maps: vec![maps], n_weights: 0, n_names: 0 }
    }

    fn name(&mut self) -> String {
        self.n_names += 1;
        format!("v{}", self.n_names)
    }

    fn weights(&mut self, dims: &[i64]) -> String {
        self.n_weights += 1;
        let name = format!("w{}", self.n_weights);
        let n: i64 = dims.iter().product();
        let gain = 2.0 / (n as f32 / dims[0] as f32).sqrt();
        let weights: Vec<f32> = noise(self.n_weights, n as usize).iter().map(|x| x * gain).collect();
        self.graph = self.graph.clone().floats(&name, dims, &weights);
        name
    }

    fn node(&mut self, operator: &str, inputs: &[&str], with: impl Fn(Node) -> Node) -> String {
        let name = self.name();
        self.graph = self.graph.clone().node(with(Node::new(operator, inputs, &[&name])));
        name
    }

    fn longs(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.graph = self.graph.clone().longs(&name, &[values.len() as i64], values);
        name
    }

    fn output(&mut self, name: &str, n_channels: i64, rank: usize) {
        let axes = [Axis::Named("batch"), Axis::Of(n_channels), Axis::Named("rows"), Axis::Named("columns")];
        self.graph = self.graph.clone().output(name, Element::Float, &axes[..rank]);
    }

    fn conv(&mut self, from: &Maps, n_outputs: i64, side: i64, stride: i64) {
        let weights = self.weights(&[n_outputs, from.n_channels, side, side]);
        let bias = self.weights(&[n_outputs]);
        let name = self.node("Conv", &[&from.name, &weights, &bias], |node| {
            node.ints("pads", &[side / 2; 4]).ints("strides", &[stride; 2])
        });
        let sides = from.sides.map(|n| (n - 1) / stride + 1);
        self.maps.push(Maps { name, n_channels: n_outputs, sides });
    }

    fn ask(&mut self, asked: &Asked, from: usize) {
        let from = self.maps[from % self.maps.len()].clone();
        let Maps { n_channels, sides: [height, width], .. } = from;
        match asked {
            Asked::Conv { n_outputs, side, stride } => self.conv(&from, *n_outputs, *side, *stride),
            Asked::Add => {
                let fits = |it: &&Maps| (it.n_channels, it.sides) == (n_channels, from.sides);
                let other = self.maps.iter().rev().find(fits).map_or(from.name.clone(), |it| it.name.clone());
                let name = self.node("Add", &[&from.name, &other], |node| node);
                self.maps.push(Maps { name, ..from });
            }
            Asked::Relu | Asked::Sigmoid => {
                let operator = if matches!(asked, Asked::Relu) { "Relu" } else { "Sigmoid" };
                let name = self.node(operator, &[&from.name], |node| node);
                self.maps.push(Maps { name, ..from });
            }
            Asked::Unshuffled { n_outputs, side, colours_last } => {
                if height % 2 + width % 2 > 0 {
                    return;
                }
                let (small, n_deep) = ([height / 2, width / 2], n_channels * 4);
                let apart = self.longs(&[0, n_channels, small[0], 2, small[1], 2]);
                let apart = self.node("Reshape", &[&from.name, &apart], |node| node);
                let order = if *colours_last { [0, 3, 5, 1, 2, 4] } else { [0, 1, 3, 5, 2, 4] };
                let turned = self.node("Transpose", &[&apart], |node| node.ints("perm", &order));
                let deep = self.longs(&[0, n_deep, small[0], small[1]]);
                let name = self.node("Reshape", &[&turned, &deep], |node| node);
                self.conv(&Maps { name, n_channels: n_deep, sides: small }, *n_outputs, *side, 1);
            }
            Asked::Head { n_answers, n_hidden, written } => {
                let mut rows = match written {
                    Written::PoolFlattenGemm => {
                        let mean = self.node("GlobalAveragePool", &[&from.name], |node| node);
                        self.node("Flatten", &[&mean], |node| node)
                    }
                    Written::MeanMatMulAdd => self.node("ReduceMean", &[&from.name], |node| {
                        node.ints("axes", &[2, 3]).int("keepdims", 0)
                    }),
                };
                let mut n_inputs = n_channels;
                for n_outputs in n_hidden.iter().chain([n_answers]) {
                    if n_inputs != n_channels {
                        rows = self.node("Relu", &[&rows], |node| node);
                    }
                    rows = self.dense(&rows, n_inputs, *n_outputs, *written);
                    n_inputs = *n_outputs;
                }
                self.output(&rows, *n_answers, 2);
            }
        }
    }

    fn dense(&mut self, rows: &str, n_inputs: i64, n_outputs: i64, written: Written) -> String {
        let bias = self.weights(&[n_outputs]);
        match written {
            Written::PoolFlattenGemm => {
                let weights = self.weights(&[n_outputs, n_inputs]);
                self.node("Gemm", &[rows, &weights, &bias], |node| node.int("transB", 1))
            }
            Written::MeanMatMulAdd => {
                let weights = self.weights(&[n_inputs, n_outputs]);
                let product = self.node("MatMul", &[rows, &weights], |node| node);
                self.node("Add", &[&bias, &product], |node| node)
            }
        }
    }

    /// The file, whose outputs are the last maps and every `every`th.
    fn encode(mut self, every: usize) -> Vec<u8> {
        let n = self.maps.len();
        for at in (1..n).filter(|at| at + 1 == n || at % every == 0) {
            let Maps { name, n_channels, .. } = self.maps[at].clone();
            self.output(&name, n_channels, 4);
        }
        self.graph.encode()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_networks_answer_as_stock_tract_does(
        operators in prop::collection::vec((asked(), 0usize..12), 2..14),
        sides in [1i64..10, 1i64..10], n in 1usize..6, every in 1usize..6,
    ) {
        let [height, width] = sides;
        let mut network = Network::new([8, height, width]);
        network.conv(&network.maps[0].clone(), 16, 3, 1);
        // The last values are read more often than the first, as in networks that people make.
        for (asked, back) in &operators {
            let last = network.maps.len() - 1;
            network.ask(asked, last.saturating_sub(*back / 3));
        }
        let bytes = network.encode(every);
        let batch = Tensor::new::<f32>(
            vec![n, 8, height as usize, width as usize],
            noise(9, n * 8 * (height * width) as usize),
        ).unwrap();
        // Stock tract trips over a few networks whose values are read in many places.
        let Ok(expected) = run(&in_form(&bytes, None), batch.clone()) else { return Ok(()) };
        for form in Form::all() {
            let found = run(&in_form(&bytes, Some(form)), batch.clone()).unwrap();
            let far = relative(&found, &expected);
            prop_assert!(far <= bound(form), "{}: {}", form, far);
        }
    }
}

/// A residual block, a way through an operator that no kernel knows, and a head.
fn network() -> Vec<u8> {
    let mut network = Network::new([8, 8, 8]);
    let asked = [
        (Asked::Unshuffled { n_outputs: 16, side: 1, colours_last: false }, 0),
        (Asked::Relu, 1),
        (Asked::Conv { n_outputs: 16, side: 3, stride: 1 }, 2),
        (Asked::Relu, 3),
        (Asked::Conv { n_outputs: 16, side: 3, stride: 1 }, 4),
        (Asked::Add, 5),
        (Asked::Sigmoid, 6),
        (Asked::Add, 7),
        (Asked::Conv { n_outputs: 16, side: 3, stride: 2 }, 8),
        (Asked::Conv { n_outputs: 16, side: 3, stride: 1 }, 9),
        (Asked::Head { n_answers: 5, n_hidden: Some(9), written: Written::MeanMatMulAdd }, 10),
    ];
    asked.iter().for_each(|(asked, from)| network.ask(asked, *from));
    network.encode(usize::MAX)
}

#[test]
fn a_way_that_leaves_and_comes_back_parts_the_network_in_two() {
    let Some(form) = Form::best(Precision::F32) else { return };
    let engine = in_form(&network(), Some(form));
    let found = nodes(&engine, 1, &[8, 8, 8]);
    let left: Vec<&String> = found.iter().filter(|name| *name != "LeptonConvolutions").collect();
    assert_eq!(found.len() - left.len(), 2, "{found:?}");
    assert_eq!(left.len(), 3, "the input, the operator that no kernel knows, and what adds to it: {left:?}");
}

#[test]
fn space_to_depth_is_a_part_of_the_convolution_behind_it() {
    let Some(form) = Form::best(Precision::F32) else { return };
    for colours_last in [false, true] {
        let mut network = Network::new([8, 6, 8]);
        network.ask(&Asked::Unshuffled { n_outputs: 16, side: 3, colours_last }, 0);
        network.ask(&Asked::Unshuffled { n_outputs: 16, side: 1, colours_last }, 0);
        network.ask(&Asked::Conv { n_outputs: 16, side: 3, stride: 1 }, 1);
        network.ask(&Asked::Add, 2);
        let engine = in_form(&network.encode(usize::MAX), Some(form));
        assert_eq!(nodes(&engine, 3, &[8, 6, 8]), ["Source", "LeptonConvolutions"]);
    }
}

#[test]
fn two_sessions_of_one_network_at_once_do_not_disturb_each_other() {
    let batch = |seed| Tensor::new::<f32>(vec![3, 8, 8, 8], noise(seed, 3 * 512)).unwrap();
    for form in Form::all() {
        let engine = in_form(&network(), Some(form));
        let alone = [1, 2].map(|seed| run(&engine, batch(seed)).unwrap());
        thread::scope(|scope| {
            for (seed, alone) in [(1, &alone[0]), (2, &alone[1])] {
                let engine = &engine;
                scope.spawn(move || {
                    let mut session = engine.open().unwrap();
                    for _ in 0..100 {
                        assert_eq!(session.run(vec![batch(seed)]).unwrap(), *alone, "{form}");
                    }
                });
            }
        });
    }
}
