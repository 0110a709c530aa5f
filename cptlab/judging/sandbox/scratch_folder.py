"""Empty a scratch folder, whatever a program has left there."""

from __future__ import annotations

import contextlib
import os
import stat


def empty(folder: str) -> None:
    """Remove everything in `folder`, whatever its modes and depth: the content of each folder moves up, then it goes.

    Where a program could move the folder itself away, it is made anew.
    """
    try:
        is_folder = stat.S_ISDIR(os.lstat(folder).st_mode)  # and no link to one
    except FileNotFoundError:
        is_folder = False
    if not is_folder:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder)
        os.makedirs(folder, stat.S_IRWXU)
        return
    os.chmod(folder, stat.S_IRWXU)
    names = os.listdir(folder)
    if not names:
        return
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    moved, prefix = 0, os.urandom(8).hex()  # which no program could have guessed
    while names:
        for name in names:
            try:
                os.unlink(name, dir_fd=top)
                continue
            except (IsADirectoryError, PermissionError):
                os.chmod(name, stat.S_IRWXU, dir_fd=top)  # no link, that would be gone
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            for entry in os.scandir(inner):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.name, stat.S_IRWXU, dir_fd=inner)  # to move a folder changes it
                    moved += 1
                    os.rename(entry.name, f"{prefix}-{moved}", src_dir_fd=inner, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=inner)
            os.close(inner)
            os.rmdir(name, dir_fd=top)
        names = os.listdir(top)
    os.close(top)
