"""Which drives are trusted with mapped files, on every system."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from lora_foundry.loaders.disk import drives
from lora_foundry.loaders.disk.drives import is_local

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 24 0:50 / /mnt/models rw - nfs4 server:/models rw
32 31 8:2 / /mnt/models/fast rw - xfs /dev/sdb1 rw
33 24 0:51 / /mnt/my\040share rw shared:7 master:2 - cifs //nas/share rw
34 24 0:52 / /mnt/c rw - 9p drvfs rw
35 24 0:53 / /mnt/far rw - fuse.sshfs host: rw
36 24 0:54 / /mnt/ntfs rw - fuseblk /dev/sdc1 rw
37 24 8:3 / /mnt/over rw - ext4 /dev/sdd1 rw
38 24 0:55 / /mnt/over rw - nfs server:/over rw
39 24 0:56 / /mnt/new rw - afs2030 none rw
40 41 8:4 / /mnt/first/inner rw - btrfs /dev/sde1 rw
41 24 0:57 / /mnt/first rw - ceph host:/ rw
broken line
"""
PLACES = {
    "/home/a.safetensors": True, "/mnt/models/a.safetensors": False, "/mnt/models/fast/a": True,
    "/mnt/my share/a": False, "/mnt/models2/a": True, "/mnt/c/a": False, "/mnt/far/sub/a": False,
    "/mnt/ntfs/a": False, "/mnt/over/a": False, "/mnt/new/a": False, "/mnt/first/a": False, "/mnt/first/inner/a": True,
}  # fmt: skip


@pytest.mark.parametrize(("path", "local"), PLACES.items())
def test_drives_are_told_apart_by_the_longest_mount_point(path, local, tmp_path):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert is_local(Path(path), tmp_path / "mounts") is local


def test_links_are_followed_to_their_drive(tmp_path):
    (tmp_path / "mounts").write_text(f"1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / {tmp_path.resolve()}/far rw - nfs b rw")
    (tmp_path / "link").symlink_to(tmp_path / "far")
    assert not is_local(tmp_path / "link" / "a", tmp_path / "mounts")
    assert is_local(tmp_path / "a", tmp_path / "mounts")


@pytest.mark.parametrize("platform", ["linux", "freebsd14"])
def test_without_a_list_of_mounts_nothing_is_trusted(platform, tmp_path, monkeypatch):
    monkeypatch.setattr(drives.sys, "platform", platform)
    assert not is_local(tmp_path, tmp_path / "missing")


@pytest.mark.parametrize(("machine", "name"), [("arm64", "statfs"), ("x86_64", "statfs$INODE64")])
@pytest.mark.parametrize(("kind", "flags", "answer", "local"), [
    ("apfs", 0x1000, 0, True), ("hfs", 0x1001, 0, True), ("smbfs", 0, 0, False), ("nfs", 0, 0, False),
    ("macfuse", 0x1000, 0, False), ("apfs", 0, 0, False), ("apfs", 0x1000, -1, False),
])  # fmt: skip
def test_macos_tells_by_statfs(machine, name, kind, flags, answer, local, tmp_path, monkeypatch):
    """Its structure as <sys/mount.h> has it; a network drive was once taken for a disk, for there is no /proc."""

    def statfs(path, told):
        assert path == os.fsencode(tmp_path) and len(told) == 2168
        told[:] = struct.pack("=Ii5Q2i4I16s1024s1024s8I", 0, 0, *[1] * 5, 1, 1, 501, 26, flags, 0, kind.encode(), b"/",
                              b"disk", *[0] * 8)  # fmt: skip
        return answer

    monkeypatch.setattr(drives.sys, "platform", "darwin")
    monkeypatch.setattr(drives.platform, "machine", lambda: machine)
    monkeypatch.setattr(drives.ctypes, "CDLL", lambda none: {name: statfs})
    assert is_local(tmp_path) is local


@pytest.mark.posix
def test_windows_never_maps_by_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(drives, "is_local", lambda path: True)
    assert drives.may_map(tmp_path) is True
    monkeypatch.setattr(drives.os, "name", "nt")
    try:
        assert drives.may_map(tmp_path) is False
    finally:
        monkeypatch.undo()
