"""`python -m harness` is `attention-bench`."""

import sys


def main() -> int:
    """The command line; what it needs is imported here, so that an interrupt meanwhile is met as well."""
    try:
        from harness import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
