"""A session of ONNX Runtime that survives a fork, and can be given a graph's weights apart from the graph."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_LEFT_BEHIND: list[object] = []  # sessions of a process that forked: their threads are not here, to end one would hang


class OnnxSession:
    """Runs one graph on the CPU; any number of threads may share it.

    Args:
        graph: an ONNX file.
        tensors: the graph's external initialisers by their names; None if the file holds all of them.
        threads: of one call, within operators; all cores if None.

    Attributes:
        inputs: their names, those that have a default among them.

    Raises:
        ValueError: ONNX Runtime cannot run the graph; the message names the file.
    """

    def __init__(self, graph: Path, tensors: dict[str, np.ndarray] | None = None, threads: int | None = None) -> None:
        self._graph, self._tensors, self._threads = graph, tensors, threads
        self._begin()
        required, optional = self._session.get_inputs(), self._session.get_overridable_initializers()
        self.inputs = [one.name for one in (*required, *optional)]
        self._past = {one.name: one.shape[1:] for one in required if one.name.startswith("past_")}

    def run(self, outputs: Sequence[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of some names."""
        if self._process != os.getpid():
            _LEFT_BEHIND.append(self._session)
            self._begin()
        return self._session.run(list(outputs), inputs)

    def zeros(self, texts: int) -> dict[str, np.ndarray]:
        """The `past_*` inputs that have no default, as they are where texts begin."""
        return {name: np.zeros((texts, *shape), np.float32) for name, shape in self._past.items()}

    def _begin(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads or 0
        options.log_severity_level = 3  # it warns of inputs that have defaults
        options.enable_mem_pattern = False  # it keeps a plan for every shape that comes by
        if self._tensors:
            values = map(onnxruntime.OrtValue.ortvalue_from_numpy, self._tensors.values())
            options.add_external_initializers(list(self._tensors), list(values))
        try:
            # As bytes: of a file, ONNX Runtime would look for external weights beside it.
            graph = self._graph.read_bytes() if self._tensors else str(self._graph)
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of no class of Python's
            raise ValueError(f"{self._graph} cannot be run ({error}): export it again") from error
        self._process = os.getpid()
