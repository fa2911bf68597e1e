"""How the project fails: one sentence that says what is wrong, where, and what to do.

Library code raises :class:`UserError` for anything its user can mend; a stage or command turns it
into that sentence on standard error and exit code 1. Every other exception is a bug of ours and
keeps its traceback.
"""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A fault the user can mend. The message is one sentence: what, where, what to do."""


def run(main: Callable[..., None], *arguments: str) -> None:
    """Call ``main(*arguments)``; a UserError ends the process with its sentence and exit code 1."""
    try:
        main(*arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        raise SystemExit(130) from None
