"""Sharing a trained adapter on the Hugging Face hub: a folder with its model card, its way there, and its way back.

shared_run.py       what of a training run is shared, and what must not be
folder.py           the folder as others see it
model_card.py       its README
hub.py              upload and download
pulled.py           what came back, as a run directory
"""
