"""DuckDB's extensions, taken from the installed wheels: nothing is downloaded, nobody's home is touched."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import duckdb

REQUIRED = ("icu", "ducklake", "spatial")
OPTIONAL = ("avro",)


def use_private_home(home: Path) -> None:
    """Make `home` this process's HOME and lay the wheels' extensions where DuckDB looks for them.

    DuckDB reads HOME when it connects, and local-bigquery connects without an extension directory of its
    own, so the environment of this one process is the only door.
    """
    os.environ["HOME"] = str(home)
    folder = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / _platform()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*REQUIRED, *OPTIONAL):
        source = _in_wheel(name)
        if source is None and name in REQUIRED:
            raise FileNotFoundError(
                f"the DuckDB extension {name} for DuckDB {duckdb.__version__} is not installed; "
                f"install Manta with its extra 'local' (duckdb-extension-{name}=={duckdb.__version__})"
            )
        if source is not None:
            _link(folder / source.name, source)


def _platform() -> str:
    row = duckdb.connect().execute("PRAGMA platform").fetchone()
    if row is None:
        raise RuntimeError("DuckDB does not name its platform")
    return str(row[0])


def _in_wheel(name: str) -> Path | None:
    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    if found is None or not found.submodule_search_locations:
        return None
    package = Path(next(iter(found.submodule_search_locations)))
    file = package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    return file if file.is_file() else None


def _link(link: Path, source: Path) -> None:
    # A link and not INSTALL's copy: 150 MB and a second of start for every data dir otherwise.
    # Always made anew, because the wheel may have moved with its virtual environment.
    link.unlink(missing_ok=True)
    link.symlink_to(source)
