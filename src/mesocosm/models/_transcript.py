"""What a paid endpoint was asked and answered, on disk before anything else happens."""

import json
import os
from pathlib import Path
from typing import Any


class Transcript:
    """A file of JSON lines: `asked` before a request leaves, then `answered`, `refused` or `lost`.

    Each line has the tokens in and out that it accounts for: `asked` the most that they can be, the line after it what
    they were. So a request whose end is missing, because the process was killed, counts in full. One process at a time
    may hold the file; a last line cut short is dropped.

    Raises:
        OSError: when another process holds the file.
        ValueError: for a damaged line.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock, Timeout

        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{path}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise OSError(f"{path} is in use by another process; wait for it, or stop it") from error
        self.answers: dict[str, str] = {}
        self.requests = self.tokens_in = self.tokens_out = 0
        self._pending = (0, 0)
        self._file = open(path, "ab+")  # noqa: SIM115 - held until `close`
        try:
            self._read(path)
        except ValueError:
            self.close()
            raise

    def add(self, event: str, key: str, tokens_in: int, tokens_out: int, **facts: Any) -> None:
        """Append a line and wait until the disk holds it."""
        entry = {"event": event, "key": key, "tokens_in": tokens_in, "tokens_out": tokens_out, **facts}
        self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(entry)

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def _read(self, path: Path) -> None:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        self._file.truncate(whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is damaged in line {number}: restore it, or delete that line") from error

    def _take(self, entry: dict[str, Any]) -> None:
        counted = (entry["tokens_in"], entry["tokens_out"])
        before = (0, 0) if entry["event"] == "asked" else self._pending
        self.tokens_in += counted[0] - before[0]
        self.tokens_out += counted[1] - before[1]
        self._pending = counted if entry["event"] == "asked" else (0, 0)
        self.requests += entry["event"] == "asked"
        if entry["event"] == "answered":
            self.answers[entry["key"]] = entry["text"]
