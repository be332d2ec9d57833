"""The engines side by side: each loads a network, runs it on one thread or on two, and gives its answer.

Every engine has the same three methods: `run(n)` answers the seconds of each of n runs on one thread,
`pair(n)` the seconds that 2 n runs took on two workers of one thread each, and `output()` the numbers of
the first output. The extents of the batch are told to every engine that can use them.
"""

import threading
import time

import numpy as np
import onnxruntime
import openvino


class OnnxRuntime:
    """ONNX Runtime in f32. Inputs and outputs are bound, so that a call copies nothing in Python."""

    def __init__(self, file, batch):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_free_dimension_override_by_name("batch", batch.shape[0])
        if batch.dtype == np.int64:
            options.add_free_dimension_override_by_name("length", batch.shape[1])
        self.session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.batch = batch

    def bound(self):
        binding = self.session.io_binding()
        binding.bind_cpu_input(self.session.get_inputs()[0].name, self.batch)
        binding.bind_output(self.session.get_outputs()[0].name, "cpu")
        return binding

    def run(self, n):
        binding = self.bound()
        self.session.run_with_iobinding(binding)
        times = []
        for _ in range(n):
            start = time.perf_counter()
            self.session.run_with_iobinding(binding)
            times.append(time.perf_counter() - start)
        return times

    def pair(self, n):
        # One session: a run computes on the thread that calls, outside of Python's lock.
        start_line = threading.Barrier(2)
        spans = [None, None]

        def work(worker):
            binding = self.bound()
            self.session.run_with_iobinding(binding)
            start_line.wait()
            start = time.perf_counter()
            for _ in range(n):
                self.session.run_with_iobinding(binding)
            spans[worker] = start, time.perf_counter()

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(end for _, end in spans) - min(start for start, _ in spans)

    def output(self):
        binding = self.bound()
        self.session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0]

    def close(self):
        del self.session


class OpenVino:
    """OpenVINO in one precision, timed by its own clock and not around the call from Python."""

    def __init__(self, precision, file, batch):
        self.batch = batch
        model = openvino.Core().read_model(str(file))
        model.reshape(openvino.PartialShape(list(batch.shape)))
        self.model = model
        self.precision = precision
        self.request = self.compiled(1).create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(batch))
        self.queue = None

    def compiled(self, n_streams):
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": n_streams,
            "NUM_STREAMS": n_streams,
            "PERFORMANCE_HINT": "LATENCY" if n_streams == 1 else "THROUGHPUT",
            "ENABLE_CPU_PINNING": False,
        }
        return openvino.Core().compile_model(self.model, "CPU", settings)

    def run(self, n):
        times = []
        for _ in range(n):
            self.request.infer()
            times.append(self.request.latency * 1e-3)
        return times

    def pair(self, n):
        if self.queue is None:
            self.queue = openvino.AsyncInferQueue(self.compiled(2), 2)
            for request in self.queue:
                request.set_input_tensor(openvino.Tensor(self.batch))
                request.infer()
        start = time.perf_counter()
        for _ in range(2 * n):
            self.queue.start_async()
        self.queue.wait_all()
        return time.perf_counter() - start

    def output(self):
        self.request.infer()
        return self.request.get_output_tensor().data.copy()

    def close(self):
        del self.request, self.queue
