"""The command ``paceline``; one module per subcommand."""

import sys

from paceline import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command line, by default the process's own; returns the exit status: 0 done, 1 could not be done,
    2 misused. The version is told without the gateway's packages, too."""
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"paceline {__version__}")
        return 0
    try:
        from paceline.cli.commands import run  # which needs the packages of the gateway
    except ModuleNotFoundError as error:
        if (error.name or "paceline").split(".")[0] == "paceline":
            raise  # a defect of ours
        print(
            f"paceline: the command needs the package {error.name}, which is not installed; "
            "install it with: pip install 'paceline[serve]'",
            file=sys.stderr,
        )
        return 1
    return run(arguments)
