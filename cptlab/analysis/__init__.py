"""Studies of models and settings that belong to no single run of the method: each is a command of its own."""
