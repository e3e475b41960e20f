"""``python -m sage_compat``."""

from sage_compat.cli import main

if __name__ == "__main__":
    main()
