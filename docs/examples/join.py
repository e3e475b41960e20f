"""Orders with the names of their customers: ``python join.py [threads|processes|actors]``."""

import sys

from environments import environment

from sage_qd.runtime import Environment, Result

CUSTOMERS = [(1, "Ada"), (2, "Grace"), (3, "Edsger")]
ORDERS = [(1, "loom"), (2, "compiler"), (1, "engine"), (4, "nothing")]


def build(env: Environment) -> Result:
    """From two streams with a key to ``(name, thing)``."""
    customers = env.from_collection(CUSTOMERS, name="customers").keyby(lambda row: row[0], name="by number")
    orders = env.from_collection(ORDERS, name="orders").keyby(lambda row: row[0], name="by customer")
    return customers.join(orders, lambda customer, order: (customer[1], order[1]), parallelism=2).collect()


if __name__ == "__main__":
    env = environment("orders", sys.argv[1:])
    pairs = build(env)
    env.execute()
    for name, thing in sorted(pairs.items):
        print(f"{name}: {thing}")
