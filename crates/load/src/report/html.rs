//! The page: curves, tables and how to read them. It needs no other file, no script and no network.

use super::{
    Figures, IN_TIME, Report,
    axis::{Axis, nines},
    chart::{Chart, Curve, Drawn, HALF, Limit, Point, WIDE, escaped},
    words,
};
use crate::{End, Slice};

/// Most points of a curve that is drawn as a line.
const POINTS: usize = 240;

pub(super) fn write(report: &Report<'_>) -> String {
    let figures = report.figures();
    let name = escaped(report.target.name());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Load report: {name}</title>\n<style>\n{}</style>\n\
         <p class=\"over\">Load report</p>\n<h1>{name}</h1>\n<p>{}</p>\n",
        include_str!("style.css"),
        escaped(&subtitle(report)),
    );
    if let [one] = figures.as_slice() {
        page += &warnings(&figures);
        page += &tiles(one, report);
    } else {
        page += &curve(&figures, report);
    }
    if figures.iter().filter(|figures| figures.run.offered.is_some()).count() > 1 {
        page += &goodput(&figures, report);
    }
    page += &percentiles(&figures, report);
    page += "<h2>Figures</h2>\n";
    page += &table(&figures, report);
    if figures.len() > 1 {
        page += &warnings(&figures);
    }
    page += &over_time(&figures);
    page += &method(&figures, report);
    page
}

fn subtitle(report: &Report<'_>) -> String {
    let mut said = words::utc(report.started);
    match report.target.size() {
        (_, 0) => {}
        (1, bytes) => said += &format!(" · a body of {} bytes", words::count(bytes as u64)),
        (n, bytes) => said += &format!(" · {n} bodies of {} bytes together", words::count(bytes as u64)),
    }
    if let Some(deadline) = report.deadline {
        said += &format!(" · deadline {} ms", deadline.as_millis());
    }
    said
}

fn warnings(figures: &[Figures<'_>]) -> String {
    let mut list = String::new();
    for one in figures {
        let mut found: Vec<String> = match one.run.end {
            End::Interrupted => vec!["interrupted before its time was over".to_owned()],
            End::Complete | End::Exhausted => Vec::new(),
        };
        found.extend(one.warnings.iter().map(|warning| match figures.len() {
            1 => format!("{}; {}", warning.found, warning.advice),
            _ => warning.found.clone(),
        }));
        if !found.is_empty() {
            list += &format!("<li><b>{}</b>: {}</li>\n", escaped(&one.run.load), escaped(&found.join("; ")));
        }
    }
    if list.is_empty() { list } else { format!("<ul class=\"warnings\">\n{list}</ul>\n") }
}

fn tiles(one: &Figures<'_>, report: &Report<'_>) -> String {
    let good = match report.deadline {
        Some(deadline) => format!("good within {} ms, a second", deadline.as_millis()),
        None => "answered with 2xx, a second".to_owned(),
    };
    let tile = |value: &str, name: &str| format!("<div><b>{value}</b><span>{}</span></div>", escaped(name));
    let tiles = [
        tile(&words::three_digits(one.good_per_s), &good),
        tile(&words::ms(one.p(0.5)), "ms, median"),
        tile(&words::ms(one.p(0.99)), "ms, p99"),
        tile(&words::ms(one.tally.ok.max()), "ms, longest"),
        tile(&words::count(one.tally.n_refused()), "refused"),
        tile(&words::count(one.tally.n_failed() + one.tally.unsent), "failed or never sent"),
    ];
    format!("<div class=\"tiles\">{}</div>\n", tiles.concat())
}

/// Latency over throughput, a point for each run.
fn curve(figures: &[Figures<'_>], report: &Report<'_>) -> String {
    let of = |quantile: f64, name: &str, colour: &str| {
        let points = figures.iter().filter_map(|one| {
            let ms = one.p(quantile)?.as_secs_f64() * 1e3;
            let hint = format!(
                "{}: {} ms at {} answers a second",
                one.run.load,
                words::three_digits(ms),
                words::three_digits(one.ok_per_s)
            );
            Some(Point { x: one.ok_per_s, y: ms, hint })
        });
        Curve {
            name: name.to_owned(),
            colour: colour.to_owned(),
            points: points.collect(),
            drawn: Drawn::Dotted,
        }
    };
    let curves = vec![
        of(0.5, "median", "var(--p50)"),
        of(0.99, "99th percentile", "var(--p99)"),
        of(0.999, "99.9th percentile", "var(--p999)"),
    ];
    let limits = deadline(report);
    let ys = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.y));
    let chart = Chart {
        size: WIDE,
        x: Axis::linear("answers of 2xx a second", figures.iter().map(|one| one.ok_per_s)),
        y: Axis::logarithmic("latency, ms", ys.chain(limits.iter().map(|limit| limit.y))),
        curves,
        limits,
        description: "Latency over throughput, a point for each load".to_owned(),
    };
    format!(
        "<h2>Latency over throughput</h2>\n<p>A point for each load, joined in the order in which they were offered. \
         Where the curve turns upwards, or back, the server takes no more.</p>\n{}",
        chart.html()
    )
}

fn deadline(report: &Report<'_>) -> Vec<Limit> {
    let limit = report.deadline.map(|deadline| Limit {
        y: deadline.as_secs_f64() * 1e3,
        name: format!("deadline {} ms", deadline.as_millis()),
    });
    limit.into_iter().collect()
}

/// Goodput over what was offered, with what would be ideal.
fn goodput(figures: &[Figures<'_>], report: &Report<'_>) -> String {
    let open = || figures.iter().filter(|one| one.run.offered.is_some());
    let most = open().map(|one| one.intended_per_s).fold(0.0, f64::max);
    let point = |x: f64, y: f64, name: &str| Point {
        x,
        y,
        hint: format!("{name} {} of {} a second", words::three_digits(y), words::three_digits(x)),
    };
    let ideal = vec![point(0.0, 0.0, ""), point(most, most, "")];
    let good = open().map(|one| point(one.intended_per_s, one.good_per_s, "good:")).collect();
    let answered = open().map(|one| point(one.intended_per_s, one.answered_per_s, "answered:")).collect();
    let chart = Chart {
        size: WIDE,
        x: Axis::linear("requests offered a second", std::iter::once(most)),
        y: Axis::linear("a second", std::iter::once(most)),
        curves: vec![
            Curve {
                name: "all of them".to_owned(),
                colour: "var(--ideal)".to_owned(),
                points: ideal,
                drawn: Drawn::Dashed,
            },
            Curve {
                name: "answered, with whatever status".to_owned(),
                colour: "var(--p99)".to_owned(),
                points: answered,
                drawn: Drawn::Dotted,
            },
            Curve {
                name: match report.deadline {
                    Some(deadline) => format!("2xx within {} ms", deadline.as_millis()),
                    None => "2xx".to_owned(),
                },
                colour: "var(--p50)".to_owned(),
                points: good,
                drawn: Drawn::Dotted,
            },
        ],
        limits: Vec::new(),
        description: "Goodput over the offered load".to_owned(),
    };
    format!(
        "<h2>Goodput over offered load</h2>\n<p>What arrived, and what of it was worth something. A server that sheds \
         load well stays flat where it can take no more; one that does not falls.</p>\n{}",
        chart.html()
    )
}

/// The share of latencies up to each time, a curve for each run.
fn percentiles(figures: &[Figures<'_>], report: &Report<'_>) -> String {
    let colours = ramp(figures.len());
    let curves: Vec<Curve> = figures
        .iter()
        .zip(colours)
        .map(|(one, colour)| Curve {
            name: one.run.load.clone(),
            colour,
            points: spectrum(one),
            drawn: Drawn::Line,
        })
        .collect();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let most = points().map(|point| point.x).fold(1.0, f64::max);
    let limits = deadline(report);
    let chart = Chart {
        size: WIDE,
        x: Axis::nines("share of the answers of 2xx that took no longer", most),
        y: Axis::logarithmic(
            "latency, ms",
            points()
                .map(|point| point.y)
                .collect::<Vec<_>>()
                .into_iter()
                .chain(limits.iter().map(|limit| limit.y)),
        ),
        curves,
        limits,
        description: "Latency by percentile".to_owned(),
    };
    format!(
        "<h2>Latency by percentile</h2>\n<p>Each nine has the same room, so that the slow tail shows. Latency counts \
         from the time at which a request was meant to be sent.</p>\n{}",
        chart.html()
    )
}

/// Points of the cumulative distribution, spread over the nines, without the last step to the maximum.
fn spectrum(one: &Figures<'_>) -> Vec<Point> {
    let n = one.tally.ok.count();
    if n == 0 {
        return Vec::new();
    }
    let most = nines(1.0 - 1.0 / n as f64);
    let room = most / POINTS as f64;
    let mut points: Vec<Point> = Vec::new();
    let (mut below, mut last) = (0, f64::NEG_INFINITY);
    for (upto, count) in one.tally.ok.buckets() {
        // The latencies of this bucket take the shares from `below` on.
        let x = nines(below as f64 / n as f64);
        below += count;
        if x - last >= room {
            last = x;
            points.push(Point { x, y: upto.as_secs_f64() * 1e3, hint: String::new() });
        }
    }
    if let Some(longest) = one.tally.ok.max() {
        points.push(Point { x: most, y: longest.as_secs_f64() * 1e3, hint: String::new() });
    }
    points
}

/// So many colours from the first to the last of the page.
fn ramp(n: usize) -> impl Iterator<Item = String> {
    let most = n.saturating_sub(1).max(1);
    (0..n).map(move |i| match n {
        1 => "var(--p50)".to_owned(),
        _ => format!("color-mix(in oklab, var(--last) {}%, var(--first))", i * 100 / most),
    })
}

fn table(figures: &[Figures<'_>], report: &Report<'_>) -> String {
    let good = match report.deadline {
        Some(deadline) => {
            format!("Goodput is what was answered with 2xx within {} ms.", deadline.as_millis())
        }
        None => "There was no deadline, so goodput is what was answered with 2xx.".to_owned(),
    };
    let mut html = format!(
        "<p>{good}</p>\n<div class=\"scroll\"><table>\n<thead><tr><th>load</th><th>offered<small>a second</small></th>\
         <th>answered<small>a second</small></th><th>goodput<small>a second</small></th>\
         <th>p50<small>ms</small></th><th>p90<small>ms</small></th><th>p99<small>ms</small></th>\
         <th>p99.9<small>ms</small></th><th>max<small>ms</small></th><th>2xx</th><th>refused</th><th>failed</th>\
         <th>never sent</th></tr></thead>\n<tbody>\n"
    );
    for one in figures {
        let tally = one.tally;
        let cells = [
            words::three_digits(one.intended_per_s),
            words::three_digits(one.answered_per_s),
            words::three_digits(one.good_per_s),
            words::ms(one.p(0.5)),
            words::ms(one.p(0.9)),
            words::ms(one.p(0.99)),
            words::ms(one.p(0.999)),
            words::ms(tally.ok.max()),
            words::count(tally.ok.count()),
            refusals(one),
            faults(one),
            words::count(tally.unsent),
        ];
        html += &format!("<tr><th>{}</th>", escaped(&one.run.load));
        cells.iter().for_each(|cell| html += &format!("<td>{cell}</td>"));
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

fn refusals(one: &Figures<'_>) -> String {
    let all: Vec<String> =
        one.tally.refusals().map(|(status, n)| format!("{} × {status}", words::count(n))).collect();
    if all.is_empty() { "0".to_owned() } else { all.join("<br>") }
}

fn faults(one: &Figures<'_>) -> String {
    let all: Vec<String> = one
        .tally
        .faults
        .iter()
        .map(|(fault, n)| format!("{} × {}", words::count(*n), escaped(&fault.to_string())))
        .collect();
    if all.is_empty() { "0".to_owned() } else { all.join("<br>") }
}

/// Rate and mean latency over the measured time, drawn small for each run.
fn over_time(figures: &[Figures<'_>]) -> String {
    let mut html =
        "<h2>Over time</h2>\n<p>Whether a measurement had settled: answers of 2xx a second, and their mean \
                    latency, over the measured time.</p>\n"
            .to_owned();
    for one in figures {
        // A point rests on at least a twentieth of a second's answers and there are at most so many.
        let joined = one.run.slices.len().div_ceil(POINTS / 2).max(5);
        let parts: Vec<(f64, &[Slice])> = one
            .run
            .slices
            .chunks_exact(joined)
            .enumerate()
            .map(|(n, part)| (Slice::begins(n * joined).as_secs_f64(), part))
            .collect();
        if parts.len() < 2 {
            continue;
        }
        let length = Slice::LENGTH.as_secs_f64() * joined as f64;
        let n_ok = |part: &[Slice]| part.iter().map(|slice| slice.ok).sum::<u64>();
        let rate = |(at, part): &(f64, &[Slice])| Point {
            x: at + length / 2.0,
            y: n_ok(part) as f64 / length,
            hint: String::new(),
        };
        let latency = |(at, part): &(f64, &[Slice])| {
            let n = n_ok(part);
            let sum: f64 = part.iter().map(|slice| slice.latency_s).sum();
            (n > 0).then(|| Point { x: at + length / 2.0, y: sum / n as f64 * 1e3, hint: String::new() })
        };
        let chart = |name: &'static str, colour: &str, points: Vec<Point>| Chart {
            size: HALF,
            x: Axis::linear("seconds", std::iter::once(one.run.window.as_secs_f64())),
            y: Axis::linear(name, points.iter().map(|point| point.y).collect::<Vec<_>>().into_iter()),
            description: format!("{name} over time at {}", one.run.load),
            curves: vec![Curve {
                name: name.to_owned(),
                colour: colour.to_owned(),
                points,
                drawn: Drawn::Line,
            }],
            limits: Vec::new(),
        };
        html += &format!(
            "<h3>{}</h3>\n<div class=\"pair\"><div>{}</div><div>{}</div></div>\n",
            escaped(&one.run.load),
            chart("answers a second", "var(--p50)", parts.iter().map(rate).collect()).html(),
            chart("mean latency, ms", "var(--p99)", parts.iter().filter_map(latency).collect()).html(),
        );
    }
    html
}

fn method(figures: &[Figures<'_>], report: &Report<'_>) -> String {
    let list = |of: &dyn Fn(&Figures<'_>) -> String| {
        let mut all: Vec<String> = figures.iter().map(of).collect();
        all.dedup();
        all.join(", ")
    };
    let facts = [
        ("command", format!("<code>{}</code>", escaped(report.command))),
        ("measured", list(&|one| words::seconds(one.run.window))),
        ("warm-up", list(&|one| words::seconds(one.run.warm_up))),
        ("connections, most at once", list(&|one| one.run.callers.to_string())),
        ("connections opened", list(&|one| words::count(one.run.connections_opened))),
        (
            "sent in time",
            format!(
                "{} within {} ms of the intended time",
                list(&|one| one.in_time.map_or_else(|| "-".to_owned(), words::percent)).replace('>', "&gt;"),
                IN_TIME.as_millis()
            ),
        ),
        ("generator's own lag, p99", format!("{} ms", list(&|one| words::ms(one.tally.own_lag.at(0.99))))),
        ("generator's CPU", format!("{} cores", list(&|one| format!("{:.2}", one.cores)))),
        (
            "Retry-After",
            list(&|one| {
                one.tally.retry_after.map_or_else(
                    || "none".to_owned(),
                    |seen| {
                        format!("{} to {} s, {} times", seen.least_s, seen.most_s, words::count(seen.answers))
                    },
                )
            }),
        ),
        ("generator", format!("lepton {}", env!("CARGO_PKG_VERSION"))),
    ];
    let mut html = "<h2>How it was measured</h2>\n<p>Each request that was due in the measured time is counted once: \
                    answered, failed, or never sent because all connections were busy. Its latency runs from the time \
                    at which it was meant to be sent to the last byte of its answer. Rates count what was completed \
                    in the measured time; the warm-up is in no figure. A percentile is named where at least one \
                    answer lies beyond it.</p>\n<dl>\n"
        .to_owned();
    for (name, value) in facts {
        html += &format!("<dt>{name}</dt><dd>{value}</dd>\n");
    }
    html + "</dl>\n</html>\n"
}
