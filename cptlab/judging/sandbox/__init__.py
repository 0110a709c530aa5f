"""Sandbox: confine a process that runs untrusted code."""
