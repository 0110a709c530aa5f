"""Where a result comes from (`provenance`), and the loggers that mirror it (`loggers`)."""
