"""
Queues behind a socket: an authenticated server that hosts queues, and queues that reach it from any host.

====================  ===================================================================
``wire``              what the two sides say to each other, and the limits of it
``faults``            exceptions as plain data, and back
``keys``              key files, allow-lists of public keys, allow-list of hosts
``sockets``           the only door to the socket library: connections with CURVE
``client``            one connection: an I/O thread, requests, credits, repeats
``queue``             the queue of a client: the words of :class:`~sage_qd.Queue`
``hosting``           the queue of a server: opaque payloads, calls that wait
``sessions``          what a server remembers of a client: answers, leases, handles
``server``            the loop that serves, and :func:`~sage_qd.queues.rpc.server.serve`
====================  ===================================================================

A session belongs to a client, not to a connection: a client that comes back soon finds its leases and the answers that
were under way. Nothing here unpickles on the side of the server: payloads stay bytes with the tag of their codec.
"""
