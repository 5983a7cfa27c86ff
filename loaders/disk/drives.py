"""On which drives a file may be mapped.

Never on Windows, where a mapped file cannot be replaced, nor on network and FUSE drives: a lost connection ends the
process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import sys
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# What is not listed is read plainly: a strange file system costs CPU time then, never the process.
LOCAL = {
    "apfs", "bcachefs", "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660",
    "jfs", "msdos", "nilfs2", "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "udf", "vfat",
    "xfs", "zfs",
}  # fmt: skip
# macOS: the size of its ``struct statfs``, where flags and the name of the file system are in it, and MNT_LOCAL.
MAC_SIZE, MAC_FLAGS, MAC_KIND, MAC_LOCAL = 2168, 64, 72, 0x1000
LOCAL_ON_MACOS = {"apfs", "hfs", "exfat", "msdos", "udf", "cd9660", "tmpfs"}


def may_map(path: Path) -> bool:
    """Whether mapping this file is safe: not on Windows, and on a drive of this machine."""
    return os.name != "nt" and is_local(path)


def is_local(path: Path, mounts: Path = MOUNTS) -> bool:
    """Whether a file lies on a local drive, by the longest mount point above it; macOS is asked for its own word."""
    if sys.platform == "darwin":
        return _is_local_on_macos(path)
    try:
        lines = mounts.read_text(errors="surrogateescape").split("\n")
        place = path.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return False
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


def _is_local_on_macos(path: Path) -> bool:
    """By ``statfs``: the kind of the file system must be one of disks, and its flags must call it local."""
    name = "statfs$INODE64" if platform.machine() == "x86_64" else "statfs"  # on Intel the plain one is an older form
    told = ctypes.create_string_buffer(MAC_SIZE)
    if ctypes.CDLL(None)[name](os.fsencode(path), told) != 0:
        return False
    (flags,) = struct.unpack_from("=I", told.raw, MAC_FLAGS)
    kind = told.raw[MAC_KIND : MAC_KIND + 16].partition(b"\0")[0].decode("ascii", "replace")
    return bool(flags & MAC_LOCAL) and kind in LOCAL_ON_MACOS
