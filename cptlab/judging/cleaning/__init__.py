"""Cleaning: extract the program from what a model wrote."""
