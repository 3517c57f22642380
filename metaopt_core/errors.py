"""The errors that a user is meant to read: they name the place, the value, what was expected and what to do."""


class UserError(Exception):
    """A mistake in what the user wrote or passed in. The command line prints it as it is, without a traceback, and exits with 2."""


class DivergedError(UserError):
    """Training or adaptation produced numbers that are not finite; another setting may not."""


class StoppedError(Exception):
    """Stopped by a callback."""
