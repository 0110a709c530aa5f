"""Execution: run programs and their tests, each in a confined process."""
