"""
The tool of old programs: ``info``, ``test``, ``benchmark``, ``monitor`` and ``cleanup``.

::

    python -m sage_compat.queue_tool info --json
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from typing import Any

from sage_compat.queue_adapter import create_queue, get_queue_backend_info, is_sage_queue_available
from sage_compat.queue_config import get_default_config
from sage_compat.records import all_records, is_in_use
from sage_compat.sage_queue import SageQueue, destroy_queue

__all__ = ["QueueTool", "create_parser", "main"]


class QueueTool:
    """What the command line does, for programs."""

    def __init__(self) -> None:
        self.config = get_default_config()

    def info(self) -> dict[str, Any]:
        """Return what backends there are."""
        return get_queue_backend_info()

    def test_backend(self, backend: str = "auto", verbose: bool = False) -> bool:
        """Put and get three messages; whether they came back in order."""
        say = print if verbose else _silent
        say(f"Testing backend: {backend}")
        wanted = ["test1", "test2", "test3"]
        try:
            queue = create_queue(backend=backend, name=f"test_queue_{time.monotonic_ns()}", maxsize=100)
            for item in wanted:
                queue.put(item, timeout=10)
                say(f"Put: {item}")
            found = [queue.get(timeout=10) for _ in wanted]
            for item in found:
                say(f"Got: {item}")
            _end(queue)
            if found != wanted:
                raise ValueError(f"Data mismatch: expected {wanted}, got {found}")
        except Exception as error:  # noqa: BLE001  (whatever it is, the test failed)
            say(f"Backend {backend} test failed: {error}")
            return False
        say(f"Backend {backend} test passed")
        return True

    def benchmark(
        self, backend: str = "auto", num_items: int = 1000, num_workers: int = 1, verbose: bool = False
    ) -> dict[str, Any]:
        """
        Put and get many messages.

        Args:
            backend: Which backend.
            num_items: How many messages.
            num_workers: Processes that put at the same time, where the backend reaches other processes.
            verbose: Print figures.

        Returns:
            Figures by name; or ``error`` with what went wrong.
        """
        say = print if verbose else _silent
        say(f"Benchmarking {backend} with {num_items} items")
        try:
            size = num_items * 2 * (256 if _counts_bytes(backend) else 1)
            queue = create_queue(backend=backend, name=f"benchmark_queue_{time.monotonic_ns()}", maxsize=size)
            put_time, get_time = _timed(queue, num_items, num_workers)
            _end(queue)
        except Exception as error:  # noqa: BLE001  (told to the caller)
            say(f"Benchmark failed: {error}")
            return {"error": str(error)}
        total = put_time + get_time
        metrics = {
            "backend": backend,
            "num_items": num_items,
            "put_time_seconds": put_time,
            "get_time_seconds": get_time,
            "total_time_seconds": total,
            "put_ops_per_second": num_items / put_time if put_time else 0,
            "get_ops_per_second": num_items / get_time if get_time else 0,
            "total_ops_per_second": num_items * 2 / total if total else 0,
        }
        for name in ("put", "get", "total"):
            say(f"{name.capitalize()}: {metrics[f'{name}_ops_per_second']:.2f} ops/sec")
        return metrics

    def monitor(
        self, queue_name: str, backend: str = "auto", interval: float = 5, duration: float = 60
    ) -> list[dict[str, Any]]:
        """Print and return the figures of a queue every ``interval`` seconds, for ``duration`` seconds."""
        print(f"Monitoring queue '{queue_name}' for {duration} seconds...")
        found: list[dict[str, Any]] = []
        end = time.monotonic() + duration
        try:
            while True:
                shown = _figures(queue_name)
                found.append({"timestamp": time.time(), "queue_name": queue_name, "backend": backend} | shown)
                print(f"[{time.strftime('%H:%M:%S')}] Queue: {queue_name}, Backend: {backend}, {shown}", flush=True)
                left = end - time.monotonic()
                if left <= 0:
                    break
                time.sleep(min(interval, left))
        except KeyboardInterrupt:
            print("\nMonitoring stopped by user")
        return found

    def cleanup(self, namespace: str | None = None, force: bool = False) -> bool:
        """Remove the queues that no process has open, after asking; False when that was declined."""
        if not force:
            answer = input("Are you sure you want to cleanup queue resources? (y/N): ")
            if answer.lower() != "y":
                print("Cleanup cancelled")
                return False
        for record in all_records():
            in_namespace = namespace is None or f"_{namespace}_" in record.full_name
            if in_namespace and not is_in_use(record.full_name):
                destroy_queue(record.full_name)
        if is_sage_queue_available():
            print("SAGE queue resources cleaned up")
        print("Queue cleanup completed")
        return True


def _counts_bytes(backend: str) -> bool:
    """Whether the room of a backend is counted in bytes."""
    return backend in ("auto", "sage", "sage_queue", "sage_mmap_queue")


def _silent(_: str) -> None:
    """Print nothing."""


def _end(queue: Any) -> None:
    queue.close()
    if isinstance(queue, SageQueue):
        queue.destroy()


def _timed(queue: Any, num_items: int, num_workers: int) -> tuple[float, float]:
    started = time.perf_counter()
    if num_workers > 1 and isinstance(queue, SageQueue):
        shares = [num_items // num_workers + (place < num_items % num_workers) for place in range(num_workers)]
        workers = [multiprocessing.Process(target=_put_many, args=(queue, share)) for share in shares]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    else:
        _put_many(queue, num_items)
    put_time = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(num_items):
        queue.get(timeout=60)
    return put_time, time.perf_counter() - started


def _put_many(queue: Any, count: int) -> None:
    for number in range(count):
        queue.put(f"item_{number}", timeout=60)


def _figures(queue_name: str) -> dict[str, Any]:
    """Figures of a queue that is there; nothing is made to look."""
    for record in all_records():
        if queue_name in (record.name, record.full_name) and record.chain:
            stats = []
            for descriptor in record.descriptors:
                with descriptor.attach() as queue:
                    queue.leave_behind()
                    stats.append(queue.stats())
            return {"size": sum(each.depth for each in stats), "puts": sum(each.puts for each in stats)}
    return {"size": None, "puts": None}


def create_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="SAGE Queue Management Tool")
    verbs = parser.add_subparsers(dest="command", help="Available commands")
    info = verbs.add_parser("info", help="Show queue backend information")
    info.add_argument("--json", action="store_true", help="Output in JSON format")
    test = verbs.add_parser("test", help="Test queue backends")
    test.add_argument("--backend", default="auto", help="Backend to test")
    test.add_argument("--verbose", "-v", action="store_true", help="Verbose output")
    bench = verbs.add_parser("benchmark", help="Benchmark queue performance")
    bench.add_argument("--backend", default="auto", help="Backend to benchmark")
    bench.add_argument("--items", type=int, default=1000, help="Number of items to process")
    bench.add_argument("--workers", type=int, default=1, help="Number of workers")
    bench.add_argument("--verbose", "-v", action="store_true", help="Verbose output")
    monitor = verbs.add_parser("monitor", help="Monitor queue statistics")
    monitor.add_argument("queue_name", help="Name of queue to monitor")
    monitor.add_argument("--backend", default="auto", help="Backend type")
    monitor.add_argument("--interval", type=float, default=5, help="Monitoring interval (seconds)")
    monitor.add_argument("--duration", type=float, default=60, help="Monitoring duration (seconds)")
    cleanup = verbs.add_parser("cleanup", help="Clean up queue resources")
    cleanup.add_argument("--namespace", help="Specific namespace to clean up")
    cleanup.add_argument("--force", action="store_true", help="Force cleanup without confirmation")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 1 for a failed test or benchmark, or a declined cleanup."""
    parser = create_parser()
    given = parser.parse_args(arguments)
    tool = QueueTool()
    if given.command == "info":
        _print_info(tool.info(), as_json=given.json)
    elif given.command == "test":
        return int(not tool.test_backend(given.backend, given.verbose))
    elif given.command == "benchmark":
        metrics = tool.benchmark(given.backend, given.items, given.workers, given.verbose)
        if "error" in metrics:
            print(f"Benchmark failed: {metrics['error']}")
            return 1
        print(json.dumps(metrics, indent=2))
    elif given.command == "monitor":
        tool.monitor(given.queue_name, given.backend, given.interval, given.duration)
    elif given.command == "cleanup":
        return int(not tool.cleanup(given.namespace, given.force))
    else:
        parser.print_help()
    return 0


def _print_info(info: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(info, indent=2))
        return
    print("Queue Backend Information:")
    print(f"  Current Backend: {info['current_backend']}")
    print(f"  SAGE Available: {info['sage_available']}")
    print(f"  Available Backends: {', '.join(info['backends'])}")
    print(f"  Extension Status: {info['extension_status']}")


if __name__ == "__main__":
    sys.exit(main())
