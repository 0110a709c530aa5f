"""Linting: the pylint score of programs, which the scorer `pylint` gives."""
