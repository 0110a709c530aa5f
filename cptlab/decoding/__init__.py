"""From prompts to programs: sampling, the batched engine, and Selective Prompt Anchoring."""

from cptlab.decoding.engine import generate
from cptlab.decoding.sampling import Sampling
from cptlab.decoding.spa import Anchoring

__all__ = ["Anchoring", "Sampling", "generate"]
