//! Networks made by code: an ONNX writer, and the two kinds of network that are served.
//!
//! It writes protobuf by hand, so that a test names no inference library; the field numbers are
//! those of `onnx.proto3`. Weights come from a fixed generator: the same bytes on every run.

/// Extent of an axis as ONNX declares it.
#[derive(Debug, Clone, Copy)]
pub enum Axis {
    Of(i64),
    Named(&'static str),
}

/// ONNX's number for an element type.
#[derive(Debug, Clone, Copy)]
pub enum Element {
    Float = 1,
    Byte = 2,
    SignedByte = 3,
    UnsignedShort = 4,
    Short = 5,
    Int = 6,
    Long = 7,
    Text = 8,
    Bool = 9,
    Half = 10,
    Double = 11,
    UnsignedInt = 12,
    UnsignedLong = 13,
    BrainHalf = 16,
}

/// A protobuf message being written.
#[derive(Debug, Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn ints(self, field: u64, values: &[i64]) -> Self {
        values.iter().fold(self, |message, value| message.int(field, *value))
    }
}

/// One operator of a graph.
#[derive(Debug, Clone)]
pub struct Node(Message);

impl Node {
    pub fn new(op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let message = inputs.iter().fold(Message::default(), |message, name| message.text(1, name));
        let message = outputs.iter().fold(message, |message, name| message.text(2, name));
        Self(message.text(3, outputs[0]).text(4, op))
    }

    pub fn int(self, name: &str, value: i64) -> Self {
        Self(self.0.message(5, Message::default().text(1, name).int(3, value).int(20, 2)))
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        Self(self.0.message(5, Message::default().text(1, name).text(4, value).int(20, 3)))
    }

    pub fn texts(self, name: &str, values: &[&str]) -> Self {
        let attribute = values.iter().fold(Message::default().text(1, name), |to, value| to.text(9, value));
        Self(self.0.message(5, attribute.int(20, 8)))
    }

    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        Self(self.0.message(5, Message::default().text(1, name).ints(8, values).int(20, 7)))
    }
}

/// A graph being written.
#[derive(Debug, Clone, Default)]
pub struct Graph(Message);

impl Graph {
    pub fn node(self, node: Node) -> Self {
        Self(self.0.message(1, node.0))
    }

    pub fn input(self, name: &str, element: Element, axes: &[Axis]) -> Self {
        Self(self.0.message(11, value_info(name, element, axes)))
    }

    pub fn output(self, name: &str, element: Element, axes: &[Axis]) -> Self {
        Self(self.0.message(12, value_info(name, element, axes)))
    }

    /// Declares the type of a value inside the graph, as some exporters do.
    pub fn inner(self, name: &str, element: Element, axes: &[Axis]) -> Self {
        Self(self.0.message(13, value_info(name, element, axes)))
    }

    /// Adds a weight whose elements are given as little-endian bytes.
    pub fn raw(self, name: &str, element: Element, dims: &[i64], data: &[u8]) -> Self {
        let tensor = Message::default().ints(1, dims).int(2, element as i64).text(8, name).bytes(9, data);
        Self(self.0.message(5, tensor))
    }

    pub fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.raw(name, Element::Float, dims, &data)
    }

    pub fn longs(self, name: &str, dims: &[i64], values: &[i64]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.raw(name, Element::Long, dims, &data)
    }

    /// Adds a weight whose elements lie in the file `location`.
    pub fn external(self, name: &str, dims: &[i64], location: &str) -> Self {
        self.external_of(name, Element::Float, dims, &[("location", location)])
    }

    /// As [`Graph::external`], with elements of any type and the entries that tell where they lie.
    pub fn external_of(self, name: &str, element: Element, dims: &[i64], entries: &[(&str, &str)]) -> Self {
        let tensor = Message::default().ints(1, dims).int(2, element as i64).text(8, name);
        let entry = |(key, value): &(&str, &str)| Message::default().text(1, key).text(2, value);
        let tensor = entries.iter().fold(tensor, |tensor, it| tensor.message(13, entry(it)));
        Self(self.0.message(5, tensor.int(14, 1)))
    }

    /// The whole file: a model of operator set 17.
    pub fn encode(self) -> Vec<u8> {
        let operators = Message::default().text(1, "").int(2, 17);
        Message::default().int(1, 8).message(7, self.0.text(2, "graph")).message(8, operators).0
    }
}

fn value_info(name: &str, element: Element, axes: &[Axis]) -> Message {
    let shape = axes.iter().fold(Message::default(), |shape, axis| {
        let dim = match axis {
            Axis::Of(n) => Message::default().int(1, *n),
            Axis::Named(name) => Message::default().text(2, name),
        };
        shape.message(1, dim)
    });
    let tensor = Message::default().int(1, element as i64).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

/// Numbers in -0.5..0.5 from a linear congruential generator (Knuth, MMIX).
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// An image classifier, `image` f32 [batch, 1, side, side] to `logits` f32 [batch, 3]: two
/// convolutions, an average over the picture, a matrix.
pub fn convolutional(batch: Axis, side: i64) -> Vec<u8> {
    let graph = Graph::default()
        .input("image", Element::Float, &[batch, Axis::Of(1), Axis::Of(side), Axis::Of(side)])
        .floats("w1", &[8, 1, 3, 3], &noise(1, 8 * 9))
        .floats("b1", &[8], &noise(2, 8))
        .floats("w2", &[8, 8, 3, 3], &noise(3, 8 * 8 * 9))
        .floats("b2", &[8], &noise(4, 8))
        .floats("w3", &[3, 8], &noise(5, 3 * 8))
        .floats("b3", &[3], &noise(6, 3))
        .node(Node::new("Conv", &["image", "w1", "b1"], &["c1"]).ints("pads", &[1, 1, 1, 1]))
        .node(Node::new("Relu", &["c1"], &["r1"]))
        .node(Node::new("Conv", &["r1", "w2", "b2"], &["c2"]).ints("pads", &[1, 1, 1, 1]))
        .node(Node::new("Add", &["c2", "r1"], &["sum"]))
        .node(Node::new("Relu", &["sum"], &["r2"]))
        .node(Node::new("GlobalAveragePool", &["r2"], &["mean"]))
        .node(Node::new("Flatten", &["mean"], &["flat"]))
        .node(Node::new("Gemm", &["flat", "w3", "b3"], &["logits"]).int("transB", 1));
    graph.output("logits", Element::Float, &[batch, Axis::Of(3)]).encode()
}

/// The recurrent layer of [`recurrent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Gru,
    Lstm,
}

impl Cell {
    fn op(self) -> &'static str {
        match self {
            Self::Gru => "GRU",
            Self::Lstm => "LSTM",
        }
    }

    fn n_gates(self) -> i64 {
        match self {
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }
}

/// How large a recurrent network is.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub words: i64,
    pub width: i64,
    pub state: i64,
}

/// A small one, for tests of behaviour.
pub const SMALL: Sizes = Sizes { words: 16, width: 8, state: 8 };

/// A text classifier, `ids` i64 [batch, length] to `logits` f32 [batch, 2]: word vectors, one
/// forward recurrence, a mean over the ids that are not 0, a matrix. Its initial state is made of
/// the batch's shape, as exporters do.
pub fn recurrent(cell: Cell, sizes: Sizes) -> Vec<u8> {
    recurrent_graph(cell, sizes).encode()
}

/// The graph of [`recurrent`], for a test that changes it.
pub fn recurrent_graph(cell: Cell, Sizes { words, width, state }: Sizes) -> Graph {
    let (gates, n) = (cell.n_gates() * state, |dims: &[i64]| dims.iter().product::<i64>() as usize);
    let scaled = |seed, dims: &[i64], by: f32| -> Vec<f32> {
        noise(seed, n(dims)).iter().map(|value| value * by).collect()
    };
    let (w, r, b) = ([1, gates, width], [1, gates, state], [1, 2 * gates]);
    let spread = 3.0 / (state as f32).sqrt();
    let mut recurrence = Node::new(cell.op(), &["x", "w", "r", "b", "", "h0"], &["y"]);
    if cell == Cell::Lstm {
        recurrence = Node::new(cell.op(), &["x", "w", "r", "b", "", "h0", "h0"], &["y"]);
    }
    recurrence = recurrence.int("hidden_size", state);
    if cell == Cell::Gru {
        recurrence = recurrence.int("linear_before_reset", 1);
    }
    Graph::default()
        .input("ids", Element::Long, &[Axis::Named("batch"), Axis::Named("length")])
        .floats("vectors", &[words, width], &scaled(11, &[words, width], 2.0))
        .floats("w", &w, &scaled(12, &w, spread))
        .floats("r", &r, &scaled(13, &r, spread))
        .floats("b", &b, &scaled(14, &b, 1.0))
        .floats("w_out", &[2, state], &scaled(15, &[2, state], 1.0))
        .floats("b_out", &[2], &scaled(16, &[2], 1.0))
        .floats("nothing", &[1], &[0.0])
        .longs("zero", &[1], &[0])
        .longs("one", &[1], &[1])
        .longs("two", &[1], &[2])
        .longs("state", &[1], &[state])
        .node(Node::new("Shape", &["ids"], &["shape"]))
        .node(Node::new("Slice", &["shape", "zero", "one"], &["rows"]))
        .node(Node::new("Concat", &["one", "rows", "state"], &["h0_shape"]).int("axis", 0))
        .node(Node::new("Expand", &["nothing", "h0_shape"], &["h0"]))
        .node(Node::new("Gather", &["vectors", "ids"], &["embedded"]))
        .node(Node::new("Transpose", &["embedded"], &["x"]).ints("perm", &[1, 0, 2]))
        .node(recurrence)
        .node(Node::new("Squeeze", &["y", "one"], &["states"]))
        .node(Node::new("Transpose", &["states"], &["by_row"]).ints("perm", &[1, 0, 2]))
        .node(Node::new("Equal", &["ids", "zero"], &["padding"]))
        .node(Node::new("Not", &["padding"], &["real"]))
        .node(Node::new("Cast", &["real"], &["mask"]).int("to", Element::Float as i64))
        .node(Node::new("Unsqueeze", &["mask", "two"], &["weights"]))
        .node(Node::new("Mul", &["by_row", "weights"], &["kept"]))
        .node(Node::new("ReduceSum", &["kept", "one"], &["total"]).int("keepdims", 0))
        .node(Node::new("ReduceSum", &["mask", "one"], &["count"]).int("keepdims", 1))
        .node(Node::new("Div", &["total", "count"], &["mean"]))
        .node(Node::new("Gemm", &["mean", "w_out", "b_out"], &["logits"]).int("transB", 1))
        .output("logits", Element::Float, &[Axis::Named("batch"), Axis::Of(2)])
}
