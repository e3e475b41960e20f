"""``python -m sage_sim``: the same as ``sage-sim``."""

from sage_sim.cli import main

if __name__ == "__main__":
    main()
