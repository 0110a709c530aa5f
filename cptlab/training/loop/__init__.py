"""The stages of training around the steps, on Lightning."""
