"""``python -m sage_sim``: the same as ``sage-sim``."""

from sage_sim.cli import main

main(prog_name="sage-sim")
