"""Programs about the exceptions that a type checker must accept; it refuses an ignore that nothing needs."""

import queue
from typing import assert_type

from sage_qd import Empty, MessageTooLargeError, QueueNoSpaceError, SageQueueError


def catches_with_the_standard_name(error: Empty) -> queue.Empty:
    return error


def reads_what_the_exception_carries(error: MessageTooLargeError) -> int:
    return error.size - error.limit


def treats_it_as_an_error_of_the_operating_system(error: QueueNoSpaceError) -> OSError:
    return error


def one_base_for_all(errors: list[SageQueueError]) -> None:
    for error in errors:
        assert_type(error, SageQueueError)


def cannot_forget_a_keyword() -> None:
    MessageTooLargeError(size=1)  # type: ignore[call-arg]
