"""Judged without generation: which program of a pair a model prefers, and how likely it finds lines with pylint messages.

One forward pass a program in the place of a hundred decoding steps, on pairs that were not trained on.
"""
