"""`python -m harness` is `attention-bench`."""

import gc
import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    # With -m, Python looks for modules in the folder where the command is given, first of all. A user's random.py or
    # results.py would be taken for the library's or ours. In our checkout, that folder may be the only one that has us.
    here = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == here:
        sys.path.append(here)


def main() -> int:
    """Run the command line; its imports are here, so that an interrupt during them is handled as well."""
    try:
        from harness.process.waiting import set_wait_policy

        set_wait_policy()  # before torch is imported
        from harness.cli import main

        return main.main()
    except KeyboardInterrupt:
        return 130
    finally:
        # Otherwise Python would search all of torch's objects for garbage once more on exit, which takes a second.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
