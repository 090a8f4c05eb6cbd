"""`python -m harness` is `attention-bench`."""

import gc
import sys

from harness.process.waiting import set_wait_policy


def main() -> int:
    """Run the command line; its imports are here, so that an interrupt during them is handled as well."""
    set_wait_policy()
    try:
        from harness.cli import main

        return main.main()
    except KeyboardInterrupt:
        return 130
    finally:
        # Otherwise Python would search all of torch's objects for garbage once more on exit, which takes a second.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
