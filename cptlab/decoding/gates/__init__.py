"""When the second stream is mixed in. One file each."""
