"""Running programs and the tests on them, each in its own process."""
