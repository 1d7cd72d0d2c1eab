"""When scheduled runs are due: cron expressions on the clock of a timezone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, field_validator

from engine.located import wrong

_ANY_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Schedule(BaseModel):
    """When runs of a pipeline are due. `cron` has five fields, as in crontab(5)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Five fields: minute, hour, day of month, month, day of week.
    cron: str
    #: Whose clock the fields mean, such as `Europe/Berlin`; daylight saving as cron treats it.
    timezone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _cron_is_one(cls, cron: str) -> str:
        fix = "write minute, hour, day of month, month and day of week, such as 30 5 * * *"
        # The library takes a sixth field for seconds, which nobody calls often enough.
        if len(cron.split()) != 5:
            raise wrong((), f"{cron!r} has not five fields", fix)
        try:
            CronSim(cron, _ANY_MOMENT)
        except CronSimError as error:
            raise wrong((), f"{cron!r} is no cron expression ({error})", fix) from error
        return cron

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise wrong((), f"{name!r} is no timezone", "write UTC or a name like Europe/Berlin") from error
        return name

    def next_tick(self, after: datetime) -> datetime | None:
        """The first moment behind `after` at which it is due (UTC); None when there is none in 50 years."""
        return self._first(after, reverse=False)

    def last_tick(self, before: datetime) -> datetime | None:
        """The last moment before `before` at which it was due (UTC); None when there is none in 50 years."""
        return self._first(before, reverse=True)

    def _first(self, moment: datetime, *, reverse: bool) -> datetime | None:
        local = moment.astimezone(ZoneInfo(self.timezone))
        tick = next(CronSim(self.cron, local, reverse=reverse), None)
        return tick.astimezone(UTC) if tick else None
