"""The one line in which the examples differ: where their tasks run."""

from sage_qd.runtime import Environment, LocalEnvironment, ProcessEnvironment, RemoteEnvironment


def environment(name: str, words: list[str]) -> Environment:
    """Make the environment that the command line asks for; threads when it does not."""
    where = words[0] if words else "threads"
    if where == "actors":
        import ray

        ray.init(logging_level="error", log_to_driver=False)
        return RemoteEnvironment(name)
    return {"threads": LocalEnvironment, "processes": ProcessEnvironment}[where](name)
