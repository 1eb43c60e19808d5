import dataclasses
import glob
import os
import shutil

import fsspec


@dataclasses.dataclass(frozen=True)
class FileInfo:
    url: str
    size_bytes: int
    version: str


def resolve(paths, *, recursive, suffixes, storage_options):
    out = []
    for p in [paths] if isinstance(paths, str) else paths:
        if os.path.isdir(p):
            m = sorted(
                f
                for f in glob.glob(p + ("/**/*" if recursive else "/*"), recursive=recursive)
                if f.endswith(tuple(suffixes))
            )
        else:
            m = sorted(glob.glob(p))
        if not m:
            raise FileNotFoundError(p)
        out += [
            FileInfo(os.path.abspath(f), os.stat(f).st_size, str(os.stat(f).st_mtime_ns)) for f in m
        ]
    return out


def filesystem_of(url, o):
    return fsspec.core.url_to_fs(url, **o)


def register_with_duckdb(con, urls, o):
    pass


class DirectoryWriter:
    def __init__(self, url, mode, storage_options):
        self.url = url
        self.mode = mode
        self.staging = url + ".stage"

    def __enter__(self):
        if os.path.isdir(self.url) and self.mode == "error":
            raise FileExistsError(self.url)
        return self

    def commit(self, files):
        shutil.rmtree(self.url, ignore_errors=True)
        os.rename(self.staging, self.url)

    def __exit__(self, *a):
        shutil.rmtree(self.staging, ignore_errors=True)
