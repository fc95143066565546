"""The command line: `pysharedpages COMMAND`, one module a command.

A command's module has `add_parser`, which adds its sub-parser and sets the defaults `run` and
`parser` on it; `run` takes the parsed options and returns an `Exit`. Results go to stdout;
progress and what went wrong go to stderr.

Exit codes: 0 done, 1 a check failed, 2 usage, 3 this host cannot, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from pysharedpages.cli import inspect, migrate, races, replay
from pysharedpages.cli.exits import CannotRunError, Exit, UsageError

__all__ = ["main"]

_COMMANDS = (migrate, races, replay, inspect)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, by default that of `sys.argv`; return the exit code.

    Bad usage and `--help` end in `SystemExit`, as argparse has it.
    """
    options = _parser().parse_args(argv)
    code = int(Exit.DONE)
    try:
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UsageError as error:
        parser: argparse.ArgumentParser = options.parser
        parser.error(str(error))
    except CannotRunError as error:
        print(f"pysharedpages: {error}", file=sys.stderr)
        return Exit.CANNOT_RUN
    except BrokenPipeError:
        # Whoever read the output has enough.
        _drop_output()
        return code
    except OSError as error:
        print(f"pysharedpages: {error}", file=sys.stderr)
        _drop_output()
        return Exit.CANNOT_RUN
    except KeyboardInterrupt:
        print("pysharedpages: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED


def _drop_output() -> None:
    """What is left of the output must not be flushed at exit."""
    if sys.stdout is None:
        return
    with suppress(OSError), open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pysharedpages",
        description="Which guest pages of a confidential VM are shared with the host.",
        epilog="exit codes: 0 done, 1 a check failed, 2 usage, 3 this host cannot",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
