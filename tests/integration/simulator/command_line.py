"""The simulator's command line, in this process."""

from simulator.cli import parse_config, run


def exit_code(*options: str) -> int:
    """Run the options of `python -m simulator` and return the exit code."""
    try:
        config, _ = parse_config(options)
    except SystemExit as ended:
        return int(ended.code or 0)
    return run(config)
