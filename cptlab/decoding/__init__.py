"""From prompts to programs: the batched engine, sampling, other strategies, and guidance by a second stream."""

from cptlab.decoding.anchors import anchored_prompt, parse_anchors
from cptlab.decoding.engine import Strategy, generate, positions_needed
from cptlab.decoding.gates.always import Always
from cptlab.decoding.gates.deviation import Deviation
from cptlab.decoding.gates.entropy import Entropy
from cptlab.decoding.gates.failed_tests import FailedTests
from cptlab.decoding.guidance import Guidance
from cptlab.decoding.logits_processor import SPALogitsProcessor
from cptlab.decoding.negatives.masked import Masked
from cptlab.decoding.negatives.no_examples import NoExamples
from cptlab.decoding.negatives.no_prefix import NoPrefix
from cptlab.decoding.negatives.other_prompt import OtherPrompt
from cptlab.decoding.rules.linear import Linear
from cptlab.decoding.rules.plausible import Plausible
from cptlab.decoding.sampling import Sampling
from cptlab.decoding.steering import Steering
from cptlab.decoding.strategies.adadec import AdaDec
from cptlab.decoding.strategies.beams import Beams

__all__ = [
    "AdaDec",
    "Always",
    "Beams",
    "Deviation",
    "Entropy",
    "FailedTests",
    "Guidance",
    "Linear",
    "Masked",
    "NoExamples",
    "NoPrefix",
    "OtherPrompt",
    "Plausible",
    "SPALogitsProcessor",
    "Sampling",
    "Steering",
    "Strategy",
    "anchored_prompt",
    "generate",
    "parse_anchors",
    "positions_needed",
]
