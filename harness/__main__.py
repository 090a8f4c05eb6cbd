"""`python -m harness` is `attention-bench`."""

import gc
import sys


def main() -> int:
    """The command line; what it needs is imported here, so that an interrupt meanwhile is met as well."""
    try:
        from harness.cli import main

        return main.main()
    except KeyboardInterrupt:
        return 130
    finally:
        # Python would look through all that torch has made once more before it ends, which takes a second.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
