"""Rules: how the logits of two streams are mixed. One file each."""
