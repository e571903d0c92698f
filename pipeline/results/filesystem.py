"""Tells a file system whose locks other machines don't see, which ``flock`` itself takes without complaint."""

import sys
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_LOCAL_LOCKS = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"local_lock=all", "local_lock=flock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}
"""Mount options, by type of file system, with which locks hold on this machine only."""


def why_locks_fail(folder: Path) -> str | None:
    """What is wrong with locks in ``folder`` according to the mount table; None where nothing is known to be."""
    if sys.platform != "linux":
        return None
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return None
    return bad_mount(mounts, folder.resolve())


def bad_mount(mounts: str, folder: Path) -> str | None:
    """Judge the mount of ``mounts`` (in the form of fstab) that holds ``folder``: the deepest, the last of several."""
    best, verdict = -1, None
    for line in mounts.splitlines():
        _, mount_point, kind, options, *_ = line.split(" ")
        point = Path(mount_point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best = len(point.parts)
            local = _LOCAL_LOCKS.get(kind, set()) & set(options.split(","))
            verdict = f"{kind} mounted with {', '.join(sorted(local))}" if local else None
    return verdict
