"""The process of a command: standard streams that cannot fail it, signals that stop it, and its exit code."""
