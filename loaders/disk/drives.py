"""On which drives a file may be mapped.

Never on Windows, where a mapped file cannot be replaced, nor on network and FUSE drives: a lost connection ends the
process.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# What is not listed is read plainly: a strange file system costs CPU time then, never the process.
LOCAL = {
    "apfs", "bcachefs", "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660",
    "jfs", "msdos", "nilfs2", "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "udf", "vfat",
    "xfs", "zfs",
}  # fmt: skip


def may_map(path: Path) -> bool:
    """Whether mapping this file is safe: not on Windows, and on a drive of this machine."""
    return os.name != "nt" and is_local(path)


def is_local(path: Path, mounts: Path = MOUNTS) -> bool:
    """Whether a file lies on a local drive, by the longest mount point above it; without a list of mounts, on macOS."""
    try:
        lines = mounts.read_text(errors="surrogateescape").split("\n")
        place = path.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return sys.platform == "darwin"
    longest, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        if len(point.parts) >= longest and place.is_relative_to(point):  # a later mount covers an earlier one
            longest, kind = len(point.parts), right.split(" ")[0]
    return kind in LOCAL
