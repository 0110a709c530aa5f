"""What a training run takes, before it starts: exact sizes, and what a few real steps show. Nothing needs this room."""
