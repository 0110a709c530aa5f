"""Linting: score programs with pylint."""
