"""Where pairs come from when programs have to be made, scored and run for them, one file for each kind of recipe.

Each has one function of (recipe, system, tasks, judge, fill) that returns the pairs and what is counted on the way. `system` is
the backbone with its prompts and its sampling, and `fill` makes its programs. Everything that takes long is in stores below the cache.
"""
