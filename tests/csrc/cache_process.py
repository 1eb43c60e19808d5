"""A process that asks the cache for one entry: `cache_process.py CACHE_PY LOG SECONDS`.

Making the entry appends a line to LOG, writes half of it, prints "half", and takes SECONDS. At the
end the entry's content is printed. cache.py is loaded by its path, without torch, to start fast.
"""

import importlib.util
import sys
import time
from pathlib import Path

HALF = "0123456789" * 10_000


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(cache_file: str, log: str, seconds: str) -> None:
    spec = importlib.util.spec_from_file_location("cache", cache_file)
    assert spec is not None
    assert spec.loader is not None
    cache = importlib.util.module_from_spec(spec)
    sys.modules["cache"] = cache  # dataclasses look their module up
    spec.loader.exec_module(cache)

    def make(folder: Path) -> None:
        with Path(log).open("a") as lines:
            lines.write("made\n")
        with (folder / "data").open("w") as data:
            data.write(HALF)
            data.flush()
            say("half")
            time.sleep(float(seconds))
            data.write(HALF)

    entry = cache.get("kernels", cache.key_of(["one"]), make)
    whole = (entry / "data").read_text() == HALF + HALF
    say("whole" if whole else "torn")


if __name__ == "__main__":
    main(*sys.argv[1:])
