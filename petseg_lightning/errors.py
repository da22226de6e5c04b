"""The one exception that is shown to users as a single line."""


class InputError(ValueError):
    """A mistake in what the user gave: config value, file, checkpoint.

    The message is one line that says what was wrong, the rule, and the fix; the doors print it without a
    traceback and exit with code 1.
    """


class PrunedError(Exception):
    """A training that a search gives up, with the reason; neither a mistake nor a bug."""
