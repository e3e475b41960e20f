"""
The old path: queues with the old semantics in pure Python, which need nothing of the ring.

It is what a program starts on, and what a rollback returns to, so it must work when everything new is broken: its files
lie in another place than the rings', and no compiled code is loaded for it.
"""
