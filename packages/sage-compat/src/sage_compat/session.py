"""
Names: whom a queue is shared with.

Node names repeat in every job, so a queue is shared by the processes of one *session*: a program and what it starts.
The session is an id in the environment, put there when it is first needed, so that children inherit it, however they
are started. Queues that unrelated programs shall share have a namespace, or ``enable_multi_tenant=False``.
"""

import getpass
import os
import sys
import threading
import uuid
from typing import Final

from sage_compat.repeated import hold_over_fork

__all__ = ["SESSION_VARIABLE", "USER_VARIABLE", "namespaced", "session", "user"]

SESSION_VARIABLE: Final = "SAGE_COMPAT_SESSION"
USER_VARIABLE: Final = "SAGE_USER"
_making = threading.Lock()
hold_over_fork(_making)


def session() -> str:
    """
    Return the id of the session; puts it into the environment at the first call.

    In a program that is connected to a Ray cluster it is the job's, which workers on other machines have, too.
    """
    known = os.environ.get(SESSION_VARIABLE)
    if known:
        return known
    with _making:
        return os.environ.setdefault(SESSION_VARIABLE, _ray_job() or uuid.uuid4().hex[:12])


def _ray_job() -> str | None:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return f"ray-{ray.get_runtime_context().get_job_id()}"


def user() -> str:
    """Return the user whose name begins the names of queues: that of ``SAGE_USER``, else of this process."""
    named = os.environ.get(USER_VARIABLE)
    if named:
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user that the system does not know
        return f"uid{os.geteuid()}"


def namespaced(name: str, namespace: str | None, *, enable_multi_tenant: bool, pid_in_name: bool = False) -> str:
    """
    Return the name under which a queue is found.

    Args:
        name: As the program gave it.
        namespace: Shared with every program of this user that names the same one; None for the session.
        enable_multi_tenant: False for the bare name, which every program of this user shares.
        pid_in_name: Make the name one of this process alone, as some old versions did.
    """
    if not enable_multi_tenant:
        return name
    middle = str(os.getpid()) if pid_in_name else namespace or session()
    return f"{user()}_{middle}_{name}"
