"""The command line as a shell calls it, in this process."""

import pytest

from knockgrid.cli import app as cli


def command(*arguments):
    """The exit code of one command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["knockgrid", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as done:
            return int(done.code or 0)
    return 0


def run(capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    code = command(*arguments)
    streams = capsys.readouterr()
    return code, streams.out, streams.err
