"""What is trained on a frozen backbone, and the formats that it is kept in.

`LoRA` and `FullFineTuning` are in modules of their own, `cptlab.adapters.lora` and `full`: PEFT takes seconds to import.
"""

from cptlab.adapters.base import Adapter, Policy
from cptlab.adapters.loading import load_adapter
from cptlab.adapters.peft_format import read_extra
from cptlab.adapters.prefix import Prefix, load_prefix, prefix_from_table, save_prefix

__all__ = [
    "Adapter",
    "Policy",
    "Prefix",
    "load_adapter",
    "load_prefix",
    "prefix_from_table",
    "read_extra",
    "save_prefix",
]
