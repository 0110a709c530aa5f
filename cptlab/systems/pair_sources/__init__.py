"""Where pairs come from when programs have to be made, scored and run for them, one file for each kind of recipe.

Each has one function of (recipe, system, tasks, judge) that returns the pairs and what is counted on the way. `system` is
the backbone with its prompts and its sampling. Everything that takes long is in stores below the cache.
"""
