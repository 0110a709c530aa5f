"""Ways of choosing tokens other than one after the other. One file each."""
