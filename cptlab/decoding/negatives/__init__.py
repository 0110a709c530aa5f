"""Negatives: what the second stream reads. One file each."""
