"""Second streams: what the prompt is compared with. One file each."""
