"""How many files, and so connections, a process may have open."""

import resource

from netns_lab.errors import LabError


def allow_files(count: int) -> None:
    """Let this process, and what it starts from now on, open so many files. Raises LabError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise LabError(f"{count} open files are needed and {hard} are allowed: ulimit -Hn {count}")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
