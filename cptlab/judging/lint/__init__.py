"""Linting: score programs with pylint only; another linter needs its own record, cache and call in systems/judge.py."""
