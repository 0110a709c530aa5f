"""A step as a CUDA graph: its launches are recorded once for each size, and replayed."""

from __future__ import annotations

import functools

import torch

from cptlab.decoding.slots.step import SlotStep
from cptlab.errors import UserError


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream in which steps are recorded, and run once before: each stream that multiplies keeps a workspace."""
    return torch.cuda.Stream(device)


class StepGraphs:
    """Runs `step` with as many visible columns as asked for: as a graph on a GPU, as it is elsewhere.

    There is one graph for each width, and another where the `whole` vocabulary is looked at. Graphs of rows that are no more
    must be dropped (`forget`).
    """

    def __init__(self, step: SlotStep) -> None:
        self.step = step
        self.graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] = {}
        self.pool = None

    def run(self, width: int, whole: bool) -> None:
        self.step.cache.width = width
        if self.step.last.device.type != "cuda":
            self.step(whole)
            return
        if (width, whole) not in self.graphs:
            self.graphs[width, whole] = self._captured(whole)
        self.graphs[width, whole].replay()

    def forget(self) -> None:
        self.graphs.clear()
        self.pool = None

    def _captured(self, whole: bool) -> torch.cuda.CUDAGraph:
        """Run the step once, so that libraries make what they need, take back what it changed, and record it."""
        kept = [tensor.clone() for tensor in self.step.tensors()]
        stream = _side_stream(self.step.last.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step(whole)
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, before in zip(self.step.tensors(), kept, strict=True):
            tensor.copy_(before)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=stream):
                self.step(whole)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of CUDA, where a layer does what cannot be recorded
            # the end of the recording raises, too, and its error hides the one that came first
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            reason = next(iter(str(first).splitlines()), "")
            if isinstance(first, torch.OutOfMemoryError) or "out of memory" in reason:
                raise torch.OutOfMemoryError(reason) from error
            raise UserError(
                f"The decoding step of {self.step.backbone.name} cannot be recorded as a CUDA graph ({reason}). "
                "Set decoding.slots=false."
            ) from error
        self.pool = self.pool or graph.pool()
        return graph
