"""What this process may use: memory, cores, and one thread where last digits must not change.

BLAS, and searches among equal distances, give other last digits with another number of threads;
t-SNE then grows them into another map. So those run in one thread each, and what is cut into
pieces of a fixed size is spread over threads here.
"""

import os
from pathlib import Path

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Return the memory that is free for use: of the machine, or of the container if less."""
    return min(machine_bytes(), container_bytes(CGROUP))


def machine_bytes() -> int:
    """Return what the kernel calls available, page cache included (Linux); else half of all."""
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def container_bytes(folder: Path) -> int:
    """Return what a container's limit leaves (cgroup v2); without a limit a very large number."""
    limit, used = folder / "memory.max", folder / "memory.current"
    if not (limit.exists() and used.exists()):
        return 2**62
    text = limit.read_text().strip()
    return 2**62 if text == "max" else max(0, int(text) - int(used.read_text()))


def one_thread_each() -> threadpool_limits:
    """Return a context in which BLAS and OpenMP keep to one thread."""
    return threadpool_limits(1)


def num_threads() -> int:
    """Count the cores this process may use; `OMP_NUM_THREADS` can lower it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores or 1, int(limit) if limit.isdigit() and int(limit) else 2**16))
