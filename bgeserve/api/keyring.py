"""The keys that are valid now: one from the environment, and those of a file that is read again when it has changed.

A key is added or revoked by changing the file; no process restarts. A new file that is wrong changes nothing and opens nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from bgeserve.api.keys import Key, digest_of, find, read_keys
from bgeserve.errors import SettingsError
from bgeserve.observe import Observer

logger = logging.getLogger(__name__)

KEY_VARIABLE = "BGE_SERVE_API_KEY"
"""One key that may do everything, as a Secret's reference or a shell gives it."""
KEYS_FILE_VARIABLE = "BGE_SERVE_API_KEYS_FILE"
"""A file (YAML or JSON) with a list of rows: `bge-serve keys new NAME` makes one."""


class Keyring:
    def __init__(self, fixed: Sequence[Key] = (), path: Path | None = None, observer: Observer | None = None) -> None:
        """Raises SettingsError where the file is wrong already at the start."""
        self._fixed = tuple(fixed)
        self._path = path
        self._observer = observer or Observer()
        self._stamp: tuple[int, ...] | None = None
        self._keys = self._fixed
        if path is not None:
            self._stamp = _stamp(path)
            self._keys = self._read(path)

    def find(self, sent: bytes) -> Key | None:
        return find(self._current(), sent)

    def _current(self) -> Sequence[Key]:
        # At each request, so that a revoked key's next one is refused: stat() takes microseconds.
        if self._path is not None and (stamp := _stamp(self._path)) != self._stamp:
            self._stamp = stamp
            try:
                self._keys = self._read(self._path)
                logger.info("%d API keys are valid now", len(self._keys))
            except SettingsError as error:
                logger.error("the API keys stay as they were: %s", error.message)
                self._observer.count("keys_file_rejected_total")
        return self._keys

    def _read(self, path: Path) -> tuple[Key, ...]:
        keys = read_keys(path)
        if {key.digest for key in keys} & {key.digest for key in self._fixed}:
            raise SettingsError(f"{path}: the key of {KEY_VARIABLE}, which may do everything, is there too: only one of them can hold")
        return (*self._fixed, *keys)


def keyring_of(environment: Mapping[str, str], observer: Observer | None = None) -> Keyring | None:
    """None: no keys are set up, and everybody may ask. Raises SettingsError, which never quotes a key."""
    fixed: list[Key] = []
    if KEY_VARIABLE in environment:
        secret = environment[KEY_VARIABLE].strip()
        if not secret:
            raise SettingsError(f"{KEY_VARIABLE} is empty: unset it to serve without a key", field=KEY_VARIABLE)
        # Its id has nothing of its hash: it may be shorter than the keys that we make.
        fixed.append(Key("default", "default", digest_of(secret.encode()), admin=True))
    path = environment.get(KEYS_FILE_VARIABLE)
    if path == "":
        raise SettingsError(f"{KEYS_FILE_VARIABLE} is empty: unset it to serve without a file of keys", field=KEYS_FILE_VARIABLE)
    return Keyring(fixed, Path(path) if path else None, observer) if fixed or path else None


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Of the file behind every link: Kubernetes exchanges a mounted Secret by exchanging a link in its path."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
