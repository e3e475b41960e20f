"""
The regression gate: is this change slower than what it is based on?

Two wheels, measured in turn in one run, because times of two runs are not comparable; and exact counts, which are.
`benchmarks`, `driven` and `marked` run beside the wheel that is measured, so they import nothing but it and the
standard library. `sides`, `rounds` and `exact` drive them, `rules` says what is allowed, and `gating` puts it together.
"""
