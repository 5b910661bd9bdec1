"""The command line as a shell calls it, in this process."""

import pytest

from knockgrid.cli import app as cli


def run(capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["knockgrid", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as done:
            code = int(done.code or 0)
    streams = capsys.readouterr()
    return code, streams.out, streams.err
