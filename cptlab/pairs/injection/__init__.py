"""Error injectors: edits of a clean program after which pylint reports one message more, and the tests say the same.

One function for each message, in `injectors.py`. What pylint and the tests say of the edited program decides whether a
pair is made of it (`systems/pair_sources/injected.py`), so an injector may be wrong now and then, but no pair is.
"""

from cptlab.pairs.injection.edits import Edit, apply_edits, edit_masks
from cptlab.pairs.injection.injectors import INJECTORS, injections

__all__ = ["INJECTORS", "Edit", "apply_edits", "edit_masks", "injections"]
