"""``python -m sage_qd``: the same as ``sage-qd``."""

from sage_qd.cli import main

if __name__ == "__main__":
    main()
