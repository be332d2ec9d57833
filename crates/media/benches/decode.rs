//! What it costs to turn a JPEG into a row of a network, and what other pure-Rust decoders cost.
//!
//! `cargo bench --bench decode` prints the median milliseconds of processor time from the bytes of a file
//! to the row, the part of decoding alone in parentheses: Lepton's own path, the `image` crate,
//! `jpeg-decoder`, and `jpeg-decoder` told to decode to the smallest eighth, quarter or half that is not
//! below the row. It is the time of all threads, since `jpeg-decoder` starts some of its own. All are
//! interleaved in one run. The last column says how far the levels of the scaled row are from Lepton's,
//! on average and at most; only Lepton puts upright what lies turned in its file.
//!
//! `cargo bench --bench decode -- 1920 grey` measures the cases whose names hold all the words that are
//! given. Photographs in `../shared/photos` are measured too, where there are any.

#![expect(clippy::print_stdout, reason = "a benchmark answers with a table")]

use std::{
    io::Cursor,
    path::Path,
    time::{Duration, Instant},
};

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};
use jpeg_decoder::PixelFormat;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use lepton_media::image::{
    Color, Filter, Fit, ImageInputSpec, ImageLimits, Layout, Picture, Preprocessing, Resampling,
};
use rustix::time::{ClockId, clock_gettime};

/// How long a case is measured, and how often each decoder has its turn at least and at most.
const CASE: Duration = Duration::from_millis(1500);
const FEWEST_TURNS: usize = 15;
const MOST_TURNS: usize = 500;

const LIMITS: ImageLimits = ImageLimits { pixels: 25_000_000, side: 8192, memory: 1 << 28 };

/// Sizes as of a cropped face, a small camera, and a screen.
const SIZES: [(u16, u16); 3] = [(250, 250), (640, 480), (1920, 1080)];

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The time of decoding, the time until the row was there, and the row as levels.
type Turn = (Duration, Duration, Vec<f32>);

/// Processor time of all threads from a start on.
struct Clock(Duration);

impl Clock {
    fn start() -> Self {
        Self(Self::now())
    }

    fn elapsed(&self) -> Duration {
        Self::now().saturating_sub(self.0)
    }

    fn now() -> Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    println!("| picture | row | Lepton | image | jpeg-decoder | jpeg-decoder, scaled | levels apart |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (name, jpeg) in pictures()? {
        for (row, side, color) in [("48x48 grey", 48, Color::Gray), ("112x112 RGB", 112, Color::Rgb)] {
            if words.iter().all(|word| format!("{name} {row}").contains(word.as_str())) {
                report(&format!("{name} | {row}"), &jpeg, &Row { side, color })?;
            }
        }
    }
    Ok(())
}

/// The files, each with its name.
fn pictures() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut pictures = Vec::new();
    for (width, height) in SIZES {
        let drawing = drawn(width.into(), height.into());
        for (kind, is_progressive) in [("baseline", false), ("progressive", true)] {
            let mut jpeg = Vec::new();
            let mut encoder = Encoder::new(&mut jpeg, 85);
            encoder.set_sampling_factor(SamplingFactor::F_2_2);
            encoder.set_progressive(is_progressive);
            encoder.encode(&drawing, width, height, ColorType::Rgb)?;
            pictures.push((described(&format!("drawn {width}x{height} {kind}"), &jpeg), jpeg));
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/photos");
    let mut photos: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    photos.sort_by_key(std::fs::DirEntry::file_name);
    for photo in photos {
        let jpeg = std::fs::read(photo.path())?;
        if jpeg.starts_with(&[0xff, 0xd8]) {
            let mut decoder = jpeg_decoder::Decoder::new(&*jpeg);
            decoder.read_info()?;
            let info = decoder.info().ok_or("a JPEG without a size")?;
            let kind =
                if jpeg.windows(2).any(|pair| pair == [0xff, 0xc2]) { "progressive" } else { "baseline" };
            let name = photo.file_name().to_string_lossy().into_owned();
            pictures.push((described(&format!("{name} {}x{} {kind}", info.width, info.height), &jpeg), jpeg));
        }
    }
    Ok(pictures)
}

fn described(name: &str, jpeg: &[u8]) -> String {
    format!("{name}, {} kB", jpeg.len() / 1000)
}

/// A picture with about the detail of a photograph, 1.5 bits a pixel where it is written well: noise of
/// several sizes, the finer of less contrast, as lenses leave it.
fn drawn(width: usize, height: usize) -> Vec<u8> {
    let random = |x: usize, y: usize, seed: usize| {
        let mixed = (x * 374_761_393 + y * 668_265_263 + seed * 2_147_483_647) as u32;
        let mixed = (mixed ^ mixed >> 13).wrapping_mul(1_274_126_177);
        (mixed ^ mixed >> 16) as f32 / u32::MAX as f32 - 0.5
    };
    let mut samples = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let mut levels = [120.0f32; 3];
            for octave in 0..8 {
                let size = 1usize << octave;
                let (column, row) = (x / size, y / size);
                let (right, down) = ((x % size) as f32 / size as f32, (y % size) as f32 / size as f32);
                let between = |seed: usize| {
                    let at = |dx: usize, dy: usize| random(column + dx, row + dy, seed + octave);
                    let top = at(0, 0) * (1.0 - right) + at(1, 0) * right;
                    let bottom = at(0, 1) * (1.0 - right) + at(1, 1) * right;
                    top * (1.0 - down) + bottom * down
                };
                // Brightness has most of the contrast, and colours are softer.
                let contrast = 10.0 * (size as f32).powf(0.4);
                let bright = between(0) * contrast;
                for (channel, level) in levels.iter_mut().enumerate() {
                    let tint = if octave > 3 { between(100 * (channel + 1)) * contrast * 0.3 } else { 0.0 };
                    *level += bright + tint;
                }
            }
            samples.extend(levels.map(|level| level.clamp(0.0, 255.0) as u8));
        }
    }
    samples
}

/// What the network takes.
struct Row {
    side: u32,
    color: Color,
}

fn report(name: &str, jpeg: &[u8], row: &Row) -> Result<(), Failure> {
    let paths: [&dyn Fn() -> Result<Turn, Failure>; 4] = [
        &|| by_lepton(jpeg, row),
        &|| by_image(jpeg, row),
        &|| by_jpeg_decoder(jpeg, row, u32::MAX),
        &|| by_jpeg_decoder(jpeg, row, row.side),
    ];
    let mut times: [Vec<(Duration, Duration)>; 4] = Default::default();
    let mut rows: [Vec<f32>; 4] = Default::default();
    let started = Instant::now();
    for turn in 0..MOST_TURNS {
        if turn >= FEWEST_TURNS && started.elapsed() > CASE {
            break;
        }
        for ((path, times), row) in paths.iter().zip(&mut times).zip(&mut rows) {
            let (decoded, whole, found) = path()?;
            times.push((decoded, whole));
            *row = found;
        }
    }
    let cells = times.iter_mut().map(|times| {
        let whole = median(times.iter().map(|(_, whole)| *whole));
        let decoded = median(times.iter().map(|(decoded, _)| *decoded));
        format!("{whole:.3} ({decoded:.3})")
    });
    let cells: Vec<String> = cells.collect();
    let apart: Vec<f32> = rows[0].iter().zip(&rows[3]).map(|(one, other)| (one - other).abs()).collect();
    let mean = apart.iter().sum::<f32>() / apart.len() as f32;
    let most = apart.iter().fold(0.0f32, |most, x| most.max(*x));
    println!("| {name} | {} | {mean:.1}, {most:.0} |", cells.join(" | "));
    Ok(())
}

/// The median in milliseconds.
fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn by_lepton(jpeg: &[u8], row: &Row) -> Result<Turn, Failure> {
    let preprocessing = Preprocessing::new(&ImageInputSpec {
        name: "image".to_owned(),
        width: row.side,
        height: row.side,
        color: row.color,
        layout: Layout::Nchw,
        fit: Fit::Stretch,
        filter: Filter::Bilinear,
        resampling: Resampling::Fast,
        scale: 1.0,
        mean: vec![0.0],
        std: vec![1.0],
    });
    let start = Clock::start();
    let picture = Picture::decode(jpeg, LIMITS, preprocessing.channels())?;
    let decoded = start.elapsed();
    let levels = preprocessing.row(&picture, picture.whole())?;
    Ok((decoded, start.elapsed(), levels))
}

fn by_image(jpeg: &[u8], row: &Row) -> Result<Turn, Failure> {
    let start = Clock::start();
    let reader = image::ImageReader::with_format(Cursor::new(jpeg), image::ImageFormat::Jpeg);
    let picture = reader.decode()?;
    let decoded = start.elapsed();
    let n_channels = usize::from(picture.color().channel_count());
    let (width, height) = (picture.width(), picture.height());
    let levels = resized(picture.as_bytes(), [width, height], n_channels, row)?;
    Ok((decoded, start.elapsed(), levels))
}

/// Decodes to the smallest scale that has `least` pixels each way, or in full where none has.
fn by_jpeg_decoder(jpeg: &[u8], row: &Row, least: u32) -> Result<Turn, Failure> {
    let start = Clock::start();
    let mut decoder = jpeg_decoder::Decoder::new(jpeg);
    decoder.read_info()?;
    let info = decoder.info().ok_or("a JPEG without a size")?;
    let eighths = |side: u16, n: u32| (u32::from(side) * n).div_ceil(8);
    // It takes a scale where one side is enough.
    let scale =
        [1, 2, 4].into_iter().find(|n| eighths(info.width.min(info.height), *n) >= least).unwrap_or(8);
    let [width, height] = [info.width, info.height].map(|side| eighths(side, scale));
    decoder.scale(u16::try_from(width)?, u16::try_from(height)?)?;
    let samples = decoder.decode()?;
    let decoded = start.elapsed();
    let n_channels = match decoder.info().map(|info| info.pixel_format) {
        Some(PixelFormat::L8) => 1,
        Some(PixelFormat::RGB24) => 3,
        other => return Err(format!("{other:?} is not measured").into()),
    };
    let levels = resized(&samples, [width, height], n_channels, row)?;
    Ok((decoded, start.elapsed(), levels))
}

/// Fills a row from samples of one channel or three, channel by channel.
fn resized(
    samples: &[u8],
    [width, height]: [u32; 2],
    n_channels: usize,
    row: &Row,
) -> Result<Vec<f32>, Failure> {
    let pixel = if n_channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let source = ImageRef::new(width, height, samples, pixel)?;
    let mut small = Image::new(row.side, row.side, pixel);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut small, &options)?;
    let pixels = small.buffer();
    let channel = |channel: usize| {
        pixels.iter().skip(channel.min(n_channels - 1)).step_by(n_channels).map(|level| f32::from(*level))
    };
    // ITU-R BT.601 luma.
    let luma = |pixel: &[u8; 3]| {
        let [red, green, blue] = pixel.map(f32::from);
        (0.299 * red + 0.587 * green + 0.114 * blue).round()
    };
    Ok(match (row.color, n_channels) {
        (Color::Gray, 3) => pixels.as_chunks().0.iter().map(luma).collect(),
        (Color::Gray, _) => channel(0).collect(),
        _ => (0..3).flat_map(channel).collect(),
    })
}
