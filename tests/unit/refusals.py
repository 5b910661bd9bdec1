"""What every refusal of hostile input has to be, and a pickle that would show that it ran."""

import os
import time
from pathlib import Path

import pytest

from knockgrid.errors import InputError


class MakesAFolder:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def refused(call, *args, **kwargs) -> str:
    """The message of a refusal: one line, printable, short and fast whatever was given."""
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    assert time.process_time() - started < 2.0
    return message
