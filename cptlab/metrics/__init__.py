"""From scores and verdicts to metrics with intervals. Knows no judge.

`definitions` declares the metrics, `summary` computes them over tasks, `statistics` has pass@k and the bootstrap.
"""
