"""How the project fails: one sentence that says what is wrong, where, and what to do.

Library code raises :class:`UserError` for anything its user can mend; a stage or command turns it
into that sentence on standard error and exit code 1. Every other exception is a bug of ours and
keeps its traceback.
"""

import errno
import inspect
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """A fault the user can mend. The message is one sentence: what, where, what to do."""


def run(main: Callable[..., None], *arguments: str) -> None:
    """Call ``main(*arguments)``; a UserError ends the process with its sentence and exit code 1."""
    try:
        _expect(main, arguments)
        main(*arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # whoever read our output has had enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        raise SystemExit(141) from None  # as a shell reports a program ended by SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" writing {error.filename}" if error.filename else ""
        print(f"error: the disk is full{where}; free some space and run the same command again", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        raise SystemExit(130) from None


def _expect(main: Callable[..., None], arguments: tuple[str, ...]) -> None:
    wanted = inspect.signature(main)
    try:
        wanted.bind(*arguments)
    except TypeError:
        names = " ".join(name.upper() for name in wanted.parameters) or "no argument"
        args = " ".join(arguments) or "none"
        raise UserError(f"{sys.argv[0]} takes {names}, but was given {args}; see dvc.yaml") from None
