"""How long networks take in tract, as it comes and as Lepton serves it: `cargo bench --bench engines` times them."""

from __future__ import annotations

import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np

import common

sys.path.append(str(common.REPOSITORY / "benches" / "engines"))
import lepton_engine  # noqa: E402

TURNS = 15
RUNS = 20


class Cost(NamedTuple):
    """Microseconds for one row on one thread."""

    tract: int   # as it comes
    served: int  # with Lepton's fastest kernels for this processor


def costs(networks: Sequence[bytes], batch: np.ndarray) -> tuple[str, list[Cost]]:
    """The form of Lepton's kernels, and what each network costs for this batch.

    All take turns; the costs are medians over turns of the fastest run of each.
    """
    engine = lepton_engine.Lepton(shlex.split(lepton_engine.SERVE), common.REPOSITORY)
    with tempfile.TemporaryDirectory() as folder:
        loaded = []
        for k, network in enumerate(networks):
            file = Path(folder) / f"{k}.onnx"
            file.write_bytes(network)
            loaded.append([engine.load(form, file, batch) for form in ("stock", engine.forms[0])])
        fastest = [[[], []] for _ in loaded]
        for _ in range(TURNS):
            for of_network, times in zip(loaded, fastest):
                for each, found in zip(of_network, times):
                    found.append(min(each.run(RUNS)))
    form = engine.forms[0]
    engine.close()
    return form, [Cost(*(round(statistics.median(found) * 1e6 / len(batch)) for found in times)) for times in fastest]
