"""How two streams' logits become one. One file each."""
