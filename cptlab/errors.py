"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """A mistake of the user: one sentence that says what is wrong, and one that says how to mend it.

    The entry scripts print it without a traceback and end with exit code 2.
    """
