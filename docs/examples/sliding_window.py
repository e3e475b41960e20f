"""Mean of the last five readings of each sensor: ``python sliding_window.py [threads|processes|actors]``."""

import sys

from environments import environment

from sage_qd.runtime import Environment, Result

WINDOW = 5
Reading = tuple[str, float]


def readings(count: int) -> list[Reading]:
    """Three sensors in turn."""
    return [(f"sensor {number % 3}", float(number * number % 101)) for number in range(count)]


def slide(window: tuple[float, ...], reading: Reading) -> tuple[float, ...]:
    """The window after one more reading."""
    return (*window, reading[1])[-WINDOW:]


def build(env: Environment, count: int) -> Result:
    """From readings to ``(sensor, mean)``, one for each reading."""
    return (
        env.from_collection(readings(count))
        .keyby(lambda reading: reading[0])
        .reduce(slide, first=lambda reading: (reading[1],), parallelism=2)
        .map(lambda found: (found[0], sum(found[1]) / len(found[1])))
        .collect()
    )


if __name__ == "__main__":
    env = environment("readings", sys.argv[1:])
    means = build(env, 30)
    env.execute()
    for sensor, mean in sorted(dict(means.items).items()):  # the last one of each
        print(f"{sensor}: {mean:.1f}")
