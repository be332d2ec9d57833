//! JPEGs of every kind that ITU-T T.81 allows and libjpeg reads: sampling factors, scans, restart markers,
//! sizes, colour markers. Encoders write few of them.

mod coder;

use coder::{CodeTable, CodeTables, CoderBlock, CoderState, Writer};

/// A component: its name and its sampling factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    pub id: u8,
    pub across: usize,
    pub down: usize,
}

/// The marker of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Baseline,
    Extended,
    Progressive,
}

/// A scan: the places of its components, the first and the last coefficient, and the bits that were left
/// out before and are left out still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub components: Vec<usize>,
    pub band: (usize, usize),
    pub bits: (u32, u32),
}

/// What a file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub width: usize,
    pub height: usize,
    pub coding: Coding,
    pub components: Vec<Component>,
    pub scans: Vec<Scan>,
    /// Units between restart markers; 0 for none.
    pub restart_interval: u16,
    /// Segments before the frame: code and content.
    pub segments: Vec<(u8, Vec<u8>)>,
    /// What is drawn, and which Huffman tables are used.
    pub seed: u64,
}

/// JFIF's segment.
pub fn jfif() -> (u8, Vec<u8>) {
    (0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0".to_vec())
}

/// Adobe's segment with a transform: 0 for none, 1 for YCbCr, 2 for YCCK.
pub fn adobe(transform: u8) -> (u8, Vec<u8>) {
    (0xee, [b"Adobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat())
}

/// Numbers by chance that repeat (Marsaglia, "Xorshift RNGs", 2003).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        let mut chance = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..8).for_each(|_| _ = chance.next());
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 16) % n as u64) as usize
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.below(at + 1);
            items.swap(at, other);
        }
    }
}

/// Sampling factors as encoders write them, luma first.
const COMMON: [[(usize, usize); 3]; 8] = [
    [(1, 1), (1, 1), (1, 1)],
    [(2, 1), (1, 1), (1, 1)],
    [(2, 2), (1, 1), (1, 1)],
    [(1, 2), (1, 1), (1, 1)],
    [(4, 1), (1, 1), (1, 1)],
    [(2, 2), (2, 1), (2, 1)],
    [(1, 1), (2, 1), (2, 1)],
    [(2, 1), (1, 2), (1, 1)],
];

impl Recipe {
    /// A baseline picture with one scan.
    pub fn plain(width: usize, height: usize, factors: &[(usize, usize)]) -> Self {
        let components =
            (1..).zip(factors).map(|(id, (across, down))| Component { id, across: *across, down: *down });
        let all = (0..factors.len()).collect();
        Self {
            width,
            height,
            coding: Coding::Baseline,
            components: components.collect(),
            scans: vec![Scan { components: all, band: (0, 63), bits: (0, 0) }],
            restart_interval: 0,
            segments: vec![jfif()],
            seed: 1,
        }
    }

    /// Any picture: the kinds that occur are about as frequent as the rest together.
    pub fn random(seed: u64) -> Self {
        let chance = &mut Chance::new(seed);
        let side = |chance: &mut Chance| match chance.below(4) {
            0 => 1 + chance.below(9),
            1 => 8 * (1 + chance.below(6)) + chance.below(3) - 1,
            _ => 1 + chance.below(70),
        };
        let (width, height) = (side(chance), side(chance));
        let n_components = chance.pick(&[1, 3, 3, 3, 3, 3, 4]);
        let common = chance.pick(&COMMON);
        let is_common = chance.below(2) == 0;
        let factors: Vec<(usize, usize)> = (0..n_components)
            .map(|at| match is_common {
                true => common[at % 3],
                false => (chance.pick(&[1, 1, 2, 2, 3, 4]), chance.pick(&[1, 1, 2, 2, 3, 4])),
            })
            .collect();
        let mut recipe = Self { seed, ..Self::plain(width, height, &factors) };
        recipe.coding =
            chance.pick(&[Coding::Baseline, Coding::Baseline, Coding::Extended, Coding::Progressive]);
        recipe.restart_interval = chance.pick(&[0, 0, 0, 1, 2, 3, 5, 8, 13, 40]);
        let names: [[u8; 4]; 5] = [[1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3], *b"RGBA", [1, 34, 35, 200]];
        let ids = chance.pick(&names);
        recipe.components.iter_mut().zip(ids).for_each(|(component, id)| component.id = id);
        let markers: [&[(u8, Vec<u8>)]; 8] = [
            &[jfif()],
            &[jfif()],
            &[],
            &[adobe(0)],
            &[adobe(1)],
            &[adobe(2)],
            &[adobe(7)],
            &[jfif(), adobe(0)],
        ];
        recipe.segments = chance.pick(&markers).to_vec();
        recipe.scans = match recipe.coding {
            Coding::Progressive => recipe.progression(chance),
            _ => recipe.groups(chance).into_iter().map(|components| whole(components, (0, 63))).collect(),
        };
        if recipe.scans.len() == 1 && chance.below(8) == 0 {
            // Components of one name are told apart by their order, which takes a scan of all of them.
            recipe.components.iter_mut().for_each(|component| component.id = 7);
        }
        recipe
    }

    /// Components in groups that scans may interleave.
    fn groups(&self, chance: &mut Chance) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.components.len()).collect();
        let blocks = |group: &[usize]| {
            group.iter().map(|at| self.components[*at].across * self.components[*at].down).sum::<usize>()
        };
        let mut groups: Vec<Vec<usize>> = match chance.below(3) {
            0 => vec![order],
            1 => order.into_iter().map(|at| vec![at]).collect(),
            _ => {
                chance.shuffle(&mut order);
                let mut rest = order.split_off(1 + chance.below(order.len()));
                // A scan has its components in the order of the frame (T.81, B.2.3).
                order.sort_unstable();
                rest.sort_unstable();
                [order, rest].into_iter().filter(|group| !group.is_empty()).collect()
            }
        };
        if groups.iter().any(|group| group.len() > 1 && blocks(group) > 10) {
            groups = (0..self.components.len()).map(|at| vec![at]).collect();
        }
        groups
    }

    /// Scans that refine each other: means first, then bands, each in its order.
    fn progression(&self, chance: &mut Chance) -> Vec<Scan> {
        let mut scans = Vec::new();
        let most = chance.below(3) as u32;
        for components in self.groups(chance) {
            scans.push(Scan { components, band: (0, 0), bits: (0, most) });
        }
        for left in (0..most).rev() {
            let refined = self.groups(chance).into_iter();
            scans.extend(refined.map(|components| Scan { components, band: (0, 0), bits: (left + 1, left) }));
        }
        let mut bands: Vec<Vec<Scan>> = Vec::new();
        for at in 0..self.components.len() {
            let split = chance.pick(&[63, 63, 5, 20]);
            let most = chance.pick(&[0, 0, 1, 2]) as u32;
            for band in [(1, split), (split + 1, 63)].into_iter().filter(|band| band.0 <= band.1) {
                let first = Scan { components: vec![at], band, bits: (0, most) };
                let refined =
                    (0..most).rev().map(|left| Scan { components: vec![at], band, bits: (left + 1, left) });
                bands.push(std::iter::once(first).chain(refined).collect());
            }
        }
        // Scans of different bands come in any order.
        let mut turns: Vec<usize> =
            bands.iter().enumerate().flat_map(|(at, scans)| std::iter::repeat_n(at, scans.len())).collect();
        chance.shuffle(&mut turns);
        let mut bands: Vec<_> = bands.into_iter().map(Vec::into_iter).collect();
        scans.extend(turns.into_iter().filter_map(|at| bands[at].next()));
        // More than 20 scans are refused.
        if scans.len() > 20 { whole_progression(self) } else { scans }
    }

    fn largest(&self) -> (usize, usize) {
        let pairs = self.components.iter().map(|component| (component.across, component.down));
        match self.components.len() {
            1 => (1, 1),
            _ => pairs.fold((1, 1), |(a, d), (x, y)| (x.max(a), y.max(d))),
        }
    }

    /// Blocks across and down that hold a component's samples, and those of whole units.
    fn blocks(&self, at: usize) -> [(usize, usize); 2] {
        let (across, down) = match self.components.len() {
            1 => (1, 1),
            _ => (self.components[at].across, self.components[at].down),
        };
        let largest = self.largest();
        let (units_x, units_y) = (self.width.div_ceil(8 * largest.0), self.height.div_ceil(8 * largest.1));
        let held =
            ((self.width * across).div_ceil(8 * largest.0), (self.height * down).div_ceil(8 * largest.1));
        [held, (units_x * across, units_y * down)]
    }

    /// The blocks of a component, drawn: slopes of its own, waves, and some noise.
    fn drawn(&self, at: usize, factors: &[u16; 64]) -> Vec<CoderBlock> {
        let chance = &mut Chance::new(self.seed.wrapping_mul(7).wrapping_add(at as u64));
        let [_, (across, down)] = self.blocks(at);
        let (mean, right, under) =
            (60 + chance.below(130), chance.below(120) as f64 - 60.0, chance.below(120) as f64 - 60.0);
        let (wave, noise) = (1.0 + chance.below(5) as f64, chance.pick(&[1, 1, 6, 40]));
        let mut blocks = Vec::with_capacity(across * down);
        for (row, column) in (0..down).flat_map(|row| (0..across).map(move |column| (row, column))) {
            let samples = std::array::from_fn(|place| {
                let (x, y) = (column * 8 + place % 8, row * 8 + place / 8);
                let (x, y) = (x as f64 / (across * 8) as f64, y as f64 / (down * 8) as f64);
                let level =
                    mean as f64 + right * x + under * y + 30.0 * ((wave * (x + y)).fract() - 0.5).abs();
                (level + chance.below(noise) as f64).clamp(0.0, 255.0)
            });
            blocks.push(coder::transform(&samples, factors));
        }
        blocks
    }

    /// Writes the file.
    pub fn encode(&self) -> Vec<u8> {
        let factors = [factors(self.seed, 3), factors(self.seed + 1, 5)];
        let (dc, ac) = huffman(self.seed);
        let (dc_codes, ac_codes) = (dc.codes(), ac.codes());
        let blocks: Vec<Vec<CoderBlock>> =
            (0..self.components.len()).map(|at| self.drawn(at, &factors[at.min(1)])).collect();
        let mut file = vec![0xff, 0xd8];
        self.segments.iter().for_each(|(code, content)| segment(&mut file, *code, content));
        for (at, factors) in (0..).zip(&factors) {
            let levels: Vec<u8> = factors.iter().map(|factor| *factor as u8).collect();
            segment(&mut file, 0xdb, &[&[at], levels.as_slice()].concat());
        }
        let code = match self.coding {
            Coding::Baseline => 0xc0,
            Coding::Extended => 0xc1,
            Coding::Progressive => 0xc2,
        };
        let ([h0, h1], [w0, w1]) = ((self.height as u16).to_be_bytes(), (self.width as u16).to_be_bytes());
        let mut frame = vec![8, h0, h1, w0, w1, self.components.len() as u8];
        for (at, component) in self.components.iter().enumerate() {
            frame.extend([component.id, (component.across << 4 | component.down) as u8, at.min(1) as u8]);
        }
        segment(&mut file, code, &frame);
        for (class, table) in [(0x00, &dc), (0x10, &ac)] {
            segment(&mut file, 0xc4, &[&[class], table.counts.as_slice(), &table.symbols].concat());
        }
        if self.restart_interval > 0 {
            segment(&mut file, 0xdd, &self.restart_interval.to_be_bytes());
        }
        for scan in &self.scans {
            let mut header = vec![scan.components.len() as u8];
            scan.components.iter().for_each(|at| header.extend([self.components[*at].id, 0]));
            header.extend([scan.band.0 as u8, scan.band.1 as u8, (scan.bits.0 << 4 | scan.bits.1) as u8]);
            segment(&mut file, 0xda, &header);
            let codes = CodeTables { dc: &dc_codes, ac: &ac_codes };
            file.extend(self.coded(scan, &blocks, codes));
        }
        file.extend([0xff, 0xd9]);
        file
    }

    fn coded(&self, scan: &Scan, blocks: &[Vec<CoderBlock>], tables: CodeTables) -> Vec<u8> {
        let (mut writer, mut state) = (Writer::default(), CoderState::default());
        let mut order: Vec<Vec<(usize, usize)>> = Vec::new();
        match scan.components.as_slice() {
            [at] => {
                let [(held_x, held_y), (across, _)] = self.blocks(*at);
                order.extend((0..held_x * held_y).map(|n| vec![(*at, n / held_x * across + n % held_x)]));
            }
            all => {
                let largest = self.largest();
                let units = (self.width.div_ceil(8 * largest.0), self.height.div_ceil(8 * largest.1));
                for (y, x) in (0..units.1).flat_map(|y| (0..units.0).map(move |x| (y, x))) {
                    let mut unit = Vec::new();
                    for at in all {
                        let (h, v) = (self.components[*at].across, self.components[*at].down);
                        let row = |row: usize| (y * v + row) * units.0 * h + x * h;
                        unit.extend((0..v).flat_map(|dy| (0..h).map(move |dx| (*at, row(dy) + dx))));
                    }
                    order.push(unit);
                }
            }
        }
        for (n, unit) in order.iter().enumerate() {
            let interval = usize::from(self.restart_interval);
            if interval > 0 && n > 0 && n % interval == 0 {
                coder::end_run(&mut writer, &mut state, tables.ac);
                writer.align();
                writer.bytes.extend([0xff, 0xd0 + ((n / interval - 1) % 8) as u8]);
                state = CoderState::default();
            }
            for (at, block) in unit {
                self.code(scan, *at, &blocks[*at][*block], tables, (&mut writer, &mut state));
            }
        }
        coder::end_run(&mut writer, &mut state, tables.ac);
        writer.align();
        writer.bytes
    }

    fn code(
        &self,
        scan: &Scan,
        at: usize,
        block: &CoderBlock,
        tables: CodeTables,
        (writer, state): (&mut Writer, &mut CoderState),
    ) {
        let (before, left) = scan.bits;
        let band = &block[scan.band.0..=scan.band.1];
        match (self.coding, scan.band.0, before) {
            (Coding::Progressive, 0, 0) => coder::mean(writer, state, at, tables.dc, block[0] >> left),
            (Coding::Progressive, 0, _) => writer.put((block[0] >> left & 1) as u32, 1),
            (Coding::Progressive, _, 0) => coder::first(writer, state, tables.ac, band, left),
            (Coding::Progressive, ..) => coder::refine(writer, state, tables.ac, band, left),
            _ => coder::sequential(writer, state, at, tables, block),
        }
    }
}

/// A scan of all bits.
fn whole(components: Vec<usize>, band: (usize, usize)) -> Scan {
    Scan { components, band, bits: (0, 0) }
}

fn whole_progression(recipe: &Recipe) -> Vec<Scan> {
    let each = |band| (0..recipe.components.len()).map(move |at| whole(vec![at], band));
    each((0, 0)).chain(each((1, 63))).collect()
}

/// Factors that grow with frequency, in coded order.
fn factors(seed: u64, slope: u64) -> [u16; 64] {
    std::array::from_fn(|at| (1 + seed % 7 + at as u64 * (seed % slope)).min(255) as u16)
}

/// CodeTables with a code for every symbol: of nearly one length, or of all lengths.
fn huffman(seed: u64) -> (CodeTable, CodeTable) {
    let turned = |mut symbols: Vec<u8>| {
        let by = seed as usize % symbols.len();
        symbols.rotate_left(by);
        symbols
    };
    let (dc, ac) = if seed.is_multiple_of(2) {
        let (mut dc, mut ac) = ([0; 16], [0; 16]);
        dc[3] = 12;
        (ac[7], ac[12]) = (120, 136);
        (dc, ac)
    } else {
        let dc = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
        (dc, [0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 209])
    };
    let table = |counts, symbols| CodeTable { counts, symbols: turned(symbols) };
    (table(dc, (0..12).collect()), table(ac, (0..=255).collect()))
}

fn segment(file: &mut Vec<u8>, code: u8, content: &[u8]) {
    file.extend([0xff, code]);
    file.extend((content.len() as u16 + 2).to_be_bytes());
    file.extend_from_slice(content);
}
