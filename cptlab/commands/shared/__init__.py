"""Steps and helpers that several commands share."""
