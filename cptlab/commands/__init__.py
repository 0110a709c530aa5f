"""What a user runs, each readable from top to bottom. Everything here is glue: what a step does stands in its room."""
