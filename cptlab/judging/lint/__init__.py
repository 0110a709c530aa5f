"""The pylint score of programs."""
