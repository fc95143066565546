"""A file written beside its place, and moved there once it is on the disk."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["replace_file"]


def replace_file(path: str | os.PathLike[str], pieces: Iterable[bytes]) -> None:
    """Put a file of these bytes at `path`; a failure, an OSError, leaves what was there.

    What is replaced gives its permissions on; a new file gets those of any other.
    """
    target = os.path.realpath(os.fsdecode(path))
    folder = os.path.dirname(target)
    mode = _mode_of(target)
    part = os.path.join(folder, f".{secrets.token_hex(8)}.part")
    file = _create(part, target)
    try:
        with open(file, "wb", buffering=0) as out:
            if mode is not None:
                os.fchmod(file, mode)
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[out.write(view) :]
            os.fsync(file)
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    _sync_folder(folder)


def _mode_of(target: str) -> int | None:
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", target)
    return stat.S_IMODE(status.st_mode)


def _create(part: str, target: str) -> int:
    try:
        return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        error.filename = target
        raise


def _sync_folder(folder: str) -> None:
    """Make the new name last, as far as can be: the file is in its place, so nothing fails here.

    A folder may be one that we can write to but not read, or on a file system that cannot sync it.
    """
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(place)
        finally:
            os.close(place)
