"""Judging programs: pylint quality, correctness by tests, and the statistics of both.

Import from the modules: `quality`, `correctness`, `sandbox`, `statistics`, `summary`. This file stays empty of imports,
because the server processes load it and must stay small.
"""
