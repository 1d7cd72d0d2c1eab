"""How far pipelines have taken in sources that grow by load partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from engine.central import Central
from engine.types import Mark

TABLE = "org_meta_source_marks"


class Marks:
    """Reads and appends `org_meta_source_marks`."""

    def __init__(self, central: Central) -> None:
        self._central = central

    def standing(self, org: str, pipeline: str) -> dict[tuple[str, str, object], Mark]:
        """The latest mark of each (credential, source, load partition)."""
        sql = (
            f"SELECT * FROM {TABLE} WHERE org_slug = @org_slug AND pipeline = @pipeline "
            "QUALIFY ROW_NUMBER() OVER (PARTITION BY credential_id, source, load_partition "
            "ORDER BY version DESC, max_export_time DESC, row_count DESC) = 1"
        )
        rows = self._central.query(sql, {"pipeline": pipeline}, org=org, purpose="source-marks")
        found = [
            Mark(
                credential_id=row["credential_id"],
                source=row["source"],
                load_partition=row["load_partition"],
                max_export_time=row["max_export_time"],
                rows=row["row_count"],
                version=row["version"],
            )
            for row in rows.to_pylist()
        ]
        return {mark.key: mark for mark in found}

    def save(
        self,
        org: str,
        pipeline: str,
        marks: Iterable[Mark],
        *,
        standing: Mapping[tuple[str, str, object], Mark],
        run_id: str,
        now: datetime,
    ) -> None:
        """Append the marks, each one version after the one that stands."""
        rows = [
            {
                "org_slug": org,
                "pipeline": pipeline,
                "credential_id": mark.credential_id,
                "source": mark.source,
                "load_partition": mark.load_partition,
                "version": (standing[mark.key].version if mark.key in standing else 0) + 1,
                "max_export_time": mark.max_export_time,
                "row_count": mark.rows,
                "run_id": run_id,
                "written_at": now,
            }
            for mark in marks
        ]
        if rows:
            self._central.append(TABLE, rows)
