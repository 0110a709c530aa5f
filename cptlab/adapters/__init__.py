"""What is trained on a frozen backbone, and the formats that it is kept in."""

from cptlab.adapters.peft_format import load_prefix, read_extra, save_prefix
from cptlab.adapters.prefix import Prefix, prefix_from_table

__all__ = ["Prefix", "load_prefix", "prefix_from_table", "read_extra", "save_prefix"]
