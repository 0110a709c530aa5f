"""Decoding in slots of fixed size: the step of a batch is one graph, and the host looks at it every few steps."""
