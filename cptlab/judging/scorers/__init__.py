"""Scorers: what quality is. Each gives a program a score from 0 to 10 and messages at its lines."""
