"""Gates: when the second stream is mixed in. One file each."""
