"""The one kind of error that a user is meant to read: it names the place, the value, what was expected and what to do."""


class UserError(Exception):
    """A mistake in what the user wrote or handed in. The command line prints it as it is, without a traceback, and exits with 2."""
