"""Lepton's engine and stock tract, behind the face that `others.py` tells of."""

import pathlib
import subprocess
import tempfile

import numpy as np

SERVE = "cargo bench --quiet --locked --bench engines -- serve"


class Lepton:
    """Lepton's engine in a process of its own, which times its runs itself."""

    def __init__(self, command, cwd):
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.folder = tempfile.TemporaryDirectory()
        self.n_loaded = 0
        self.forms = self.ask("forms").split()

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        status, _, rest = self.process.stdout.readline().rstrip("\n").partition(" ")
        if status != "ok":
            raise RuntimeError(f"{words}: {status} {rest}")
        return rest

    def load(self, form, file, batch):
        return LeptonNetwork(self, form, file, batch)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


class LeptonNetwork:
    def __init__(self, lepton, form, file, batch):
        lepton.n_loaded += 1
        self.lepton, self.name = lepton, f"network-{lepton.n_loaded}"
        self.file = pathlib.Path(lepton.folder.name) / self.name
        batch.tofile(self.file)
        dtype = {"float32": "f32", "int64": "i64"}[batch.dtype.name]
        lepton.ask("load", self.name, form, file.resolve())
        lepton.ask("input", self.name, dtype, "x".join(map(str, batch.shape)), self.file)

    def run(self, n):
        return [int(time) * 1e-9 for time in self.lepton.ask("run", self.name, n).split()]

    def pair(self, n):
        return int(self.lepton.ask("pair", self.name, n)) * 1e-9

    def output(self):
        shape = self.lepton.ask("output", self.name, self.file)
        return np.fromfile(self.file, np.float32).reshape([int(extent) for extent in shape.split("x")])

    def shares(self):
        """The share of the products that each kernel runs, and the operators that it runs."""
        parts = [part.rsplit(" ", 2) for part in self.lepton.ask("kernels", self.name).split(";") if part]
        return [(operator, kernel, float(share)) for operator, kernel, share in parts]

    def close(self):
        self.lepton.ask("drop", self.name)
        self.file.unlink()
