"""Verdicts: compare results with expected values."""
