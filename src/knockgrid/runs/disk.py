"""Disk: a full or read-only one is said in one sentence."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knockgrid.errors import InputError

DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
)
"""Errors that are the disk's, the rights' or the limits', not the program's."""


@contextmanager
def disk_errors_said(folder: Path) -> Iterator[None]:
    """An `InputError` in one sentence instead of the system's error."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise InputError(
            f"{folder} could not be written ({error.strerror}); finished shards are kept: "
            "make room or rights, and give the same command again"
        ) from None
