"""Memory that a process may still allocate."""

from __future__ import annotations

from pathlib import Path


def free_memory() -> float:
    """Bytes that the machine, and the container or batch job, still have; infinite where the system does not say."""
    return min(_cgroup_left(), _meminfo_available())


def _meminfo_available() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), float("inf"))


def _cgroup_left() -> float:
    """Bytes that the memory limit of a container or batch job leaves (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = (folder / "memory.current").read_text().strip()
    except OSError:
        return float("inf")
    return float("inf") if limit == "max" else float(limit) - float(used)
