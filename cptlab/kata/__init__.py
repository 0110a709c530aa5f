"""kata, the embedded default: a generated benchmark of small Python tasks and a tiny code LM trained for it."""
