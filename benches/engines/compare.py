"""Measures Lepton's engine beside others: the same networks, the same batches, interleaved in one run.

`python compare.py` writes the reference networks, starts `cargo bench --bench engines -- serve`, gives
each engine its turn again and again, and prints medians as Markdown; `--out FILE` writes them too. It
fails where an engine's answer is not that of ONNX Runtime.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import platform
import shlex
import statistics
import sys
import tempfile
import typing

import lepton_engine
import networks
import numpy as np
import onnxruntime
import openvino
import others

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A turn of one engine takes about this many seconds, and at least as many runs. The first run of a
# turn finds the caches as the engine before has left them, and is not counted.
TURN_S = 0.01
FEWEST_RUNS = 4
LENGTH = 32
BATCHES = {"f32": [1, 8], "i64": [1, 8, 32]}

# What the repository ships; their arithmetic is not counted.
SHIPPED = [
    networks.Network("face", [1, 48, 48], "f32", 0, 0, "network"),
    networks.Network("sentiment", ["length"], "i64", 12_288, 0, "network"),
]

# Largest difference from ONNX Runtime in f32, as a share of the largest number that it answers.
BOUNDS = {"f32": 1e-4, "bf16": 4e-2}


@dataclasses.dataclass
class Engine:
    """A column of the tables."""

    title: str
    precision: str
    # Called with the file and the batch.
    load: typing.Callable
    # Of Lepton's kernels.
    form: str = ""


def engines_of(lepton):
    """Stock tract, Lepton in each of its forms, and the others."""
    engines = [Engine("tract", "f32", functools.partial(lepton.load, "stock"))]
    for form in reversed(lepton.forms):
        load = functools.partial(lepton.load, form)
        engines.append(Engine(f"Lepton {form}", "bf16" if form.endswith("bf16") else "f32", load, form))
    engines.append(Engine("ONNX Runtime f32", "f32", others.OnnxRuntime))
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in ["f32"] + (["bf16"] if "BF16" in able else []):
        load = functools.partial(others.OpenVino, precision)
        engines.append(Engine(f"OpenVINO {precision}", precision, load))
    return engines


def batch_for(network, n_rows):
    """Seeded rows: pictures of soft shapes under some noise, or words of which few are common."""
    random = np.random.default_rng(n_rows)
    if network.dtype == "i64":
        common = random.random([n_rows, LENGTH]) ** 3
        return 1 + (common * (network.vocabulary - 2)).astype(np.int64)
    noise = random.uniform(-0.3, 0.3, [n_rows, *network.row]).astype(np.float32)
    if len(network.row) == 3:
        height, width = network.row[1:]
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        turns = random.uniform(1, 9, [n_rows, network.row[0], 3, 1, 1])
        noise += 0.7 * np.sin(turns[:, :, 0] * x + turns[:, :, 1] * y + turns[:, :, 2]).astype(np.float32)
    return noise


class Case:
    """One network on batches of one size, loaded into every engine."""

    def __init__(self, network, file, n_rows, engines):
        self.network, self.n_rows = network, n_rows
        self.engines = engines
        batch = batch_for(network, n_rows)
        self.loaded = [engine.load(file, batch) for engine in engines]
        # The first runs make plans.
        once = [statistics.median(loaded.run(5)[2:]) for loaded in self.loaded]
        self.counts = [max(FEWEST_RUNS, round(TURN_S / max(seconds, 1e-6))) for seconds in once]

    def name(self):
        return f"{self.network.name}, {self.n_rows} row{'s' if self.n_rows > 1 else ''}"

    def single(self, n_turns, quantile):
        """The seconds of a row on one thread, by engine."""
        times = [[] for _ in self.loaded]
        for _ in range(n_turns):
            for loaded, n, found in zip(self.loaded, self.counts, times):
                found.extend(loaded.run(n)[1:])
        return [float(np.quantile(found, quantile)) / self.n_rows for found in times]

    def pair(self, n_turns, quantile):
        """The seconds of a row where two workers share the rows, by engine."""
        for loaded in self.loaded:
            loaded.pair(2)
        times = [[] for _ in self.loaded]
        for _ in range(n_turns):
            for loaded, n, found in zip(self.loaded, self.counts, times):
                found.append(loaded.pair(n) / (2 * n))
        return [float(np.quantile(found, quantile)) / self.n_rows for found in times]

    def differences(self):
        """How far each engine is from ONNX Runtime, as a share of the largest number that it answers."""
        outputs = [loaded.output() for loaded in self.loaded]
        reference = [engine.title for engine in self.engines].index("ONNX Runtime f32")
        expected = outputs[reference]
        return [float(np.abs(output - expected).max() / np.abs(expected).max()) for output in outputs]

    def shares(self):
        """Which share of the products the kernels run, by form, and what runs the rest in the last one."""
        shares, rest = [], []
        for engine, loaded in zip(self.engines, self.loaded):
            if engine.form:
                parts = loaded.shares()
                shares.append(f"{sum(share for _, kernel, share in parts if kernel == engine.form):.1%}")
                rest = [f"{operator} {share:.1%}" for operator, kernel, share in parts if kernel != engine.form]
        return [*shares, ", ".join(rest)]

    def close(self):
        for loaded in self.loaded:
            loaded.close()


class Results:
    """What was measured, as rows of tables."""

    def __init__(self, engines):
        self.engines = engines
        self.single, self.pair, self.rates, self.differences, self.shares = [], [], [], [], []
        # The answers that are too far from the reference.
        self.wrong = []

    def add(self, case, arguments):
        """Measures a case."""
        name, kind = case.name(), case.network.kind
        found = case.differences()
        self.differences.append((name, [f"{difference:.1e}" for difference in found]))
        for engine, difference in zip(self.engines, found):
            # An answer that is not a number is wrong too.
            if not difference <= BOUNDS[engine.precision]:
                self.wrong.append(f"{engine.title} on {name}: {difference:.1e}")
        if case.n_rows == 1 and kind != "overhead":
            self.shares.append((case.network.name, case.shares()))
        seconds = case.single(arguments.turns, arguments.quantile)
        if kind == "convolution":
            rates = [f"{case.network.flop / of_row / 1e9:,.0f}" for of_row in seconds]
            self.rates.append((case.network.name, rates))
            return
        self.single.append((name, [microseconds(of_row) for of_row in seconds]))
        if arguments.pairs and kind == "network":
            seconds = case.pair(arguments.turns, arguments.quantile)
            self.pair.append((name, [microseconds(of_row) for of_row in seconds]))

    def tables(self):
        """All tables as Markdown."""
        titles = [engine.title for engine in self.engines]
        yield from table("One thread, microseconds a row", "network", titles, self.single)
        yield from table("Two workers of one thread each, microseconds a row", "network", titles, self.pair)
        yield from table("Convolutions on one thread, GFLOP/s", "layers", titles, self.rates)
        what = "Largest difference from ONNX Runtime, as a share of the largest number that it answers"
        yield from table(what, "network", titles, self.differences)
        forms = [engine.form for engine in self.engines if engine.form]
        yield from table("Share of the products that the kernels run", "network", [*forms, "tract's own"], self.shares)


def table(title, first, titles, rows):
    """A heading and a table; nothing where there is no row."""
    if rows:
        yield from [f"## {title}", "", f"| {' | '.join([first, *titles])} |", "| --- |" + " --- |" * len(titles)]
        yield from (f"| {' | '.join([name, *values])} |" for name, values in rows)
        yield ""


def microseconds(seconds):
    return f"{seconds * 1e6:.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"


def machine():
    """The processor, as Linux names it, and which of the instructions that count here it has."""
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    has = [f for f in ["avx2", "avx512f", "avx512_bf16", "amx_bf16"] if f in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.machine())}, {os.cpu_count()} cores, {' '.join(has)}"


def versions():
    lock = (ROOT / "Cargo.lock").read_text().split('name = "tract-onnx"')[1]
    tract = lock.split('version = "')[1].split('"')[0]
    other = openvino.__version__.split("-")[0]
    return f"tract {tract}, ONNX Runtime {onnxruntime.__version__}, OpenVINO {other}"


def measure(arguments):
    """Runs every case that is asked for."""
    lepton = lepton_engine.Lepton(shlex.split(arguments.serve), ROOT)
    engines = engines_of(lepton)
    results = Results(engines)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = [(network, folder / f"{network.name}.onnx") for network in networks.write(folder)]
        files += [(network, ROOT / "models" / network.name / "1/model.onnx") for network in SHIPPED]
        for network, file in files:
            if not all(word in network.name for word in arguments.only):
                continue
            for n_rows in BATCHES[network.dtype] if network.kind == "network" else [1]:
                case = Case(network, file, n_rows, engines)
                print(case.name(), file=sys.stderr)
                results.add(case, arguments)
                case.close()
    lepton.close()
    return results


def report(results, arguments, load_before):
    """The text of `docs/engines.md`."""
    times = "Medians" if arguments.quantile == 0.5 else f"The {arguments.quantile:.0%} quantiles of the times"
    yield from [
        "# Lepton's engine beside others",
        "",
        f"Written by `python benches/engines/compare.py --turns {arguments.turns} --quantile {arguments.quantile} "
        "--out docs/engines.md`;",
        "what is measured, and how, is in [benches/engines/README.md](../benches/engines/README.md).",
        "",
        f"- Processor: {machine()}; Linux's load average was {load_before:.1f} before the run and "
        f"{os.getloadavg()[0]:.1f} after it, of which this run is about 1.",
        f"- {versions()}.",
        f"- {times} of {arguments.turns} turns of each engine, interleaved; texts have {LENGTH} tokens.",
        "- `tract` is Lepton without its kernels; `nothing` is what a call costs in itself.",
        "",
    ]
    yield from results.tables()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="networks whose names hold all the words")
    parser.add_argument("--turns", type=int, default=31, help="turns of each engine (%(default)s)")
    parser.add_argument("--quantile", type=float, default=0.5, help="of the times; the median, if not said")
    parser.add_argument("--no-pairs", dest="pairs", action="store_false", help="leave two workers out")
    parser.add_argument("--serve", default=lepton_engine.SERVE, help="what starts Lepton's engine (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="where the tables are written too")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    results = measure(arguments)
    text = "\n".join(report(results, arguments, load_before))
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(text)
    for line in results.wrong:
        print(f"disagrees: {line}", file=sys.stderr)
    sys.exit(1 if results.wrong else 0)


if __name__ == "__main__":
    main()
