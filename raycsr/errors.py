"""The one exception for what a user can mend."""


class UserError(Exception):
    """A mistake in the input: one line that says what was wrong, the value, and the fix.

    The command line prints it without a traceback and exits with status 2.
    """
