"""The three things a user runs, each readable from top to bottom: build pairs, train, evaluate.

Everything here is glue: what a step does stands in the step's own package.
"""

from cptlab.pipeline.common import PAIRS_FILE, ROOT, begin, sandbox_of, say
from cptlab.pipeline.evaluate import evaluate
from cptlab.pipeline.pairs import build_pairs
from cptlab.pipeline.train import train

__all__ = ["PAIRS_FILE", "ROOT", "begin", "build_pairs", "evaluate", "sandbox_of", "say", "train"]
