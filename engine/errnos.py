"""What to do about what the operating system refused: one piece of advice for each error that people meet."""

from __future__ import annotations

import errno
import os

AGAIN = "then run the same command again"

PATHS: dict[int, str] = {
    errno.EACCES: f"mend the permissions, {AGAIN}",
    errno.EAGAIN: "try again; if it stays so, too many processes, threads or locks are in use ('ulimit -u')",
    errno.EBUSY: "something uses it: a mount, or a program; end that, or choose another place",
    errno.EDQUOT: f"your quota there is used up ('quota -s' shows it); remove something, {AGAIN}",
    errno.EEXIST: "move away what is there, or choose another name",
    errno.EFBIG: "the file system takes no file of that size, or 'ulimit -f' is too low; choose another place",
    errno.EIO: "the disk or its file server fails; look at 'dmesg', and use another",
    errno.EISDIR: "a directory is there; check the path",
    errno.ELOOP: "links lead in a circle there; mend them, or name the place itself",
    errno.EMFILE: "raise the limit of open files ('ulimit -n 65536', LimitNOFILE= in a systemd unit), and start again",
    errno.ENAMETOOLONG: "choose a shorter path: a part of one has 255 bytes at most, all of it 4095",
    errno.ENFILE: "the whole system has no open file left: raise fs.file-max ('sysctl'), or end what has them open",
    errno.ENODEV: "what was mounted or plugged in there is gone; bring it back, or choose another place",
    errno.ENOENT: "check the path",
    errno.ENOLCK: "the file server gives no locks; mount it with them, or choose another place",
    errno.ENOMEM: "there is too little memory; end something, or raise the limit of this job or container",
    errno.ENOSPC: f"free space there, {AGAIN}",
    errno.ENOSYS: "the file system cannot do that; choose a place on another",
    errno.ENOTCONN: "what is mounted there has died; mount it again",
    errno.ENOTDIR: "a part of the path is no directory; check the path",
    errno.ENOTEMPTY: "there is something in it by now; move that away, or choose another place",
    errno.ENXIO: "nothing is behind it; choose another place",
    errno.EOPNOTSUPP: "the file system cannot do that; choose a place on another",
    errno.EINVAL: "the file system does not take that; choose a place on another",
    errno.EPERM: "the system forbids it: look at the owner, and whether it is immutable ('lsattr')",
    errno.EPIPE: "whoever read that has ended; run it again with a reader that stays",
    errno.EROFS: "it is mounted read-only; choose another place, or mount it for writing",
    errno.ESTALE: f"the file server lost or replaced it; mount it again, {AGAIN}",
    errno.ETIMEDOUT: f"the file server does not answer; see to it, {AGAIN}",
    errno.ETXTBSY: "a program runs from it; end that, or choose another place",
    errno.EXDEV: "it would have to move to another file system; choose a place on the same one",
    errno.EUCLEAN: "the file system is damaged; look at 'dmesg', and run fsck",
    errno.EHOSTDOWN: f"the file server does not answer; see to it, {AGAIN}",
    errno.EKEYEXPIRED: f"your ticket has run out; get a new one ('kinit'), {AGAIN}",
    errno.EREMOTEIO: "the disk or its file server fails; look at 'dmesg', and use another",
}
"""By the number of the error, for a path."""

WORDS: dict[str, str] = {
    "no space left": PATHS[errno.ENOSPC],
    "too little memory is left": "choose a place on a disk, or raise the memory limit of this job or container",
    "database or disk is full": PATHS[errno.ENOSPC],
    "readonly database": PATHS[errno.EACCES],
    "disk i/o error": PATHS[errno.EIO],
    "database is locked": "another process has it open; end that, and try again",
    "malformed": "move the file away: what it remembers can be registered again",
    "not a database": "move the file away: what it remembers can be registered again",
    "a write has not ended": "the disk or its file server hangs; look at 'dmesg'; the same command resumes",
    "not a directory": PATHS[errno.ENOTDIR],
    "not open for writing": f"send it to a file, a pipe or /dev/null, {AGAIN}",
    "it became shorter": "something cut it short; see to it that nothing writes there",
}
"""By words of what is no error of the operating system's: ours, and SQLite's."""

ELSE = f"mend that, {AGAIN}"
"""For what is not in the tables."""

_BY_TEXT = {os.strerror(code).lower(): advice for code, advice in PATHS.items()} | WORDS


def advice_for(detail: object) -> str:
    """What to do, by what was said: an error crosses processes as its words."""
    said = str(detail).lower()
    found = [text for text in _BY_TEXT if text in said]
    return _BY_TEXT[max(found, key=len)] if found else ELSE
