"""Workers: server processes that fork a child for every program, and the pool that keeps them busy."""
