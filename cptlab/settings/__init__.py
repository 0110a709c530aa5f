"""Settings: declared beside what they set (setting.py), composed by Hydra, checked once, and built.

This file imports nothing, so that every room can import `cptlab.settings.setting` without Hydra.
"""
