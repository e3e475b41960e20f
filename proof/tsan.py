"""The thread-sanitizer part of row R24 alone; see `sanitizers`."""

import sys

from sanitizers import main

if __name__ == "__main__":
    sys.exit(main("tsan"))
