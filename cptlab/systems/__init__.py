"""What an evaluation compares: systems, each with its adapter, prompt, decoding, selection and post-processing."""

from cptlab.systems.system import System

__all__ = ["System"]
