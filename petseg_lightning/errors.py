"""The one exception that is shown to users as a single line."""

import signal


class InputError(ValueError):
    """A mistake in what the user gave: config value, file, checkpoint.

    The message is one line that says what was wrong, the rule, and the fix; the doors print it without a
    traceback and exit with code 1.
    """


class DivergedError(InputError):
    """A training has left the finite numbers; its last good checkpoint is there."""


class StoppedError(BaseException):
    """A signal has ended the work.

    Args:
        signum: its number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.hint = ""  # how the work goes on

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C; for others 75, which says that it may be tried again (`EX_TEMPFAIL` of sysexits.h)."""
        return 130 if self.signum == signal.SIGINT else 75

    def __str__(self) -> str:
        return "; ".join(filter(None, [f"stopped by {signal.Signals(self.signum).name}", self.hint]))


class PrunedError(Exception):
    """A training that a search gives up, with the reason; neither a mistake nor a bug."""
