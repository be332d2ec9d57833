//! Samples to coded data: the forward transform, Huffman codes, and the blocks of every kind of scan
//! (ITU-T T.81, annexes A, C, F.1 and G.1).

/// The coefficients of a block, quantised, in coded order.
pub(super) type CoderBlock = [i32; 64];

/// Where a coefficient in coded order lies in its block.
pub(super) const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The cosines of sixteenths of half a turn, up to a quarter.
const COSINES: [f64; 9] = [
    1.0,
    0.980_785_280_403_230_4,
    0.923_879_532_511_286_7,
    0.831_469_612_302_545_2,
    std::f64::consts::FRAC_1_SQRT_2,
    0.555_570_233_019_602_2,
    0.382_683_432_365_089_8,
    0.195_090_322_016_128_3,
    0.0,
];

/// Transforms 64 samples of 0 to 255 and divides them by `factors`, which are in coded order.
pub(super) fn transform(samples: &[f64; 64], factors: &[u16; 64]) -> CoderBlock {
    // By a table, not by the system's library, so that every machine writes the same files.
    let cosine = |x: usize, u: usize| {
        let angle = (2 * x + 1) * u % 32;
        let value = |angle: usize| if angle > 8 { -COSINES[16 - angle] } else { COSINES[angle] };
        let scale = if u == 0 { COSINES[4] } else { 1.0 };
        scale / 2.0 * value(if angle > 16 { 32 - angle } else { angle })
    };
    let table: [[f64; 8]; 8] = std::array::from_fn(|u| std::array::from_fn(|x| cosine(x, u)));
    let mut rows = [0.0; 64];
    for (y, u) in (0..8).flat_map(|y| (0..8).map(move |u| (y, u))) {
        rows[y * 8 + u] = (0..8).map(|x| (samples[y * 8 + x] - 128.0) * table[u][x]).sum();
    }
    let coefficient = |u: usize, v: usize| -> f64 { (0..8).map(|y| rows[y * 8 + u] * table[v][y]).sum() };
    std::array::from_fn(|at| {
        let (u, v) = (ZIGZAG[at] % 8, ZIGZAG[at] / 8);
        (coefficient(u, v) / f64::from(factors[at])).round() as i32
    })
}

/// A Huffman table to write and to code with.
#[derive(Debug, Clone)]
pub(super) struct CodeTable {
    pub(super) counts: [u8; 16],
    pub(super) symbols: Vec<u8>,
}

impl CodeTable {
    /// The code of a symbol and its length.
    fn code(&self, wanted: u8) -> (u32, u32) {
        let (mut code, mut symbols) = (0, self.symbols.iter());
        for (length, count) in (1..).zip(self.counts) {
            for symbol in symbols.by_ref().take(count.into()) {
                if *symbol == wanted {
                    return (code, length);
                }
                code += 1;
            }
            code <<= 1;
        }
        panic!("no code for {wanted:#x}");
    }

    /// The code of each of the 256 symbols, length 0 where there is none.
    pub(super) fn codes(&self) -> Codes {
        let mut codes = [(0, 0); 256];
        self.symbols.iter().for_each(|symbol| codes[usize::from(*symbol)] = self.code(*symbol));
        Codes(codes)
    }
}

/// Codes and their lengths by symbol.
#[derive(Debug, Clone)]
pub(super) struct Codes([(u32, u32); 256]);

/// Coded data with 0xff stuffed.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    bits: u64,
    n_bits: u32,
}

impl Writer {
    pub(super) fn put(&mut self, value: u32, length: u32) {
        self.bits = self.bits << length | u64::from(value & ((1u64 << length) - 1) as u32);
        self.n_bits += length;
        while self.n_bits >= 8 {
            self.n_bits -= 8;
            let byte = (self.bits >> self.n_bits) as u8;
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
    }

    fn symbol(&mut self, codes: &Codes, symbol: u8) {
        let (code, length) = codes.0[usize::from(symbol)];
        assert!(length > 0, "no code for {symbol:#x}");
        self.put(code, length);
    }

    /// A number of `size` bits; negative ones are less by one.
    fn number(&mut self, value: i32, size: u32) {
        self.put((if value < 0 { value - 1 } else { value }) as u32, size);
    }

    /// Fills the last byte with ones.
    pub(super) fn align(&mut self) {
        if self.n_bits > 0 {
            self.put(u32::MAX, 8 - self.n_bits);
        }
    }
}

/// The bits that a number takes.
fn size(value: i32) -> u32 {
    i32::BITS - value.abs().leading_zeros()
}

/// What one block of a scan depends on of those before it.
#[derive(Debug, Default)]
pub(super) struct CoderState {
    /// The mean of each component's last block.
    pub(super) means: [i32; 4],
    /// Blocks that have ended already without having said so.
    run: u32,
    /// Bits that refine coefficients of these blocks.
    late: Vec<bool>,
}

/// The tables of a component.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodeTables<'a> {
    pub(super) dc: &'a Codes,
    pub(super) ac: &'a Codes,
}

/// Codes a whole block.
pub(super) fn sequential(
    writer: &mut Writer,
    state: &mut CoderState,
    component: usize,
    tables: CodeTables,
    block: &CoderBlock,
) {
    mean(writer, state, component, tables.dc, block[0]);
    let last = block.iter().rposition(|value| *value != 0).unwrap_or(0);
    let mut zeros = 0;
    for value in &block[1..=last.max(1)] {
        zeros = coefficient(writer, tables.ac, zeros, *value);
    }
    if last < 63 {
        writer.symbol(tables.ac, 0);
    }
}

/// Codes a mean by its difference.
pub(super) fn mean(writer: &mut Writer, state: &mut CoderState, component: usize, codes: &Codes, value: i32) {
    let difference = value - state.means[component];
    state.means[component] = value;
    writer.symbol(codes, size(difference) as u8);
    writer.number(difference, size(difference));
}

/// Codes a coefficient behind `zeros` zeros, and returns how many zeros there are before the next one.
fn coefficient(writer: &mut Writer, codes: &Codes, mut zeros: u32, value: i32) -> u32 {
    if value == 0 {
        return zeros + 1;
    }
    while zeros > 15 {
        writer.symbol(codes, 0xf0);
        zeros -= 16;
    }
    writer.symbol(codes, (zeros << 4 | size(value)) as u8);
    writer.number(value, size(value));
    0
}

/// Codes a band for the first time, without its last `left` bits.
pub(super) fn first(writer: &mut Writer, state: &mut CoderState, codes: &Codes, band: &[i32], left: u32) {
    let cut = |value: i32| value.signum() * (value.abs() >> left);
    let Some(last) = band.iter().rposition(|value| cut(*value) != 0) else {
        state.run += 1;
        if state.run == 0x7fff {
            end_run(writer, state, codes);
        }
        return;
    };
    end_run(writer, state, codes);
    let mut zeros = 0;
    for value in &band[..=last] {
        zeros = coefficient(writer, codes, zeros, cut(*value));
    }
    if last + 1 < band.len() {
        state.run = 1;
    }
}

/// Codes one further bit of a band (T.81, figure G.7).
pub(super) fn refine(writer: &mut Writer, state: &mut CoderState, codes: &Codes, band: &[i32], left: u32) {
    let cut = |value: i32| value.abs() >> left;
    // The last coefficient that appears in this scan.
    let last = band.iter().rposition(|value| cut(*value) == 1);
    let (mut zeros, mut late) = (0, Vec::new());
    for (at, value) in band.iter().enumerate() {
        match cut(*value) {
            0 => zeros += 1,
            bits @ 2.. => late.push(bits & 1 == 1),
            _ => {
                end_run(writer, state, codes);
                writer.symbol(codes, (zeros << 4 | 1) as u8);
                writer.put(u32::from(*value > 0), 1);
                late.drain(..).for_each(|bit| writer.put(bit.into(), 1));
                zeros = 0;
            }
        }
        // Sixteen zeros before a new coefficient are said as soon as they are full.
        if zeros == 16 && last.is_some_and(|last| last > at) {
            end_run(writer, state, codes);
            writer.symbol(codes, 0xf0);
            late.drain(..).for_each(|bit| writer.put(bit.into(), 1));
            zeros = 0;
        }
    }
    if zeros > 0 || !late.is_empty() {
        state.run += 1;
        state.late.append(&mut late);
        if state.run == 0x7fff || state.late.len() > 900 {
            end_run(writer, state, codes);
        }
    }
}

/// Says how many blocks have ended, and refines what they hold.
pub(super) fn end_run(writer: &mut Writer, state: &mut CoderState, codes: &Codes) {
    if state.run > 0 {
        let n_bits = size(state.run as i32) - 1;
        writer.symbol(codes, (n_bits << 4) as u8);
        if n_bits > 0 {
            writer.put(state.run, n_bits);
        }
        state.run = 0;
    }
    state.late.drain(..).for_each(|bit| writer.put(bit.into(), 1));
}
