"""Files: written at once, locked, named by what they hold, and gone on with after a kill."""
