"""Strategies: ways to choose tokens other than sampling one after the other. One file each."""
