"""Server processes that fork for every program, and the pool that keeps them busy."""
