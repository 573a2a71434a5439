"""Write captured rows to PostgreSQL, on a separate connection and in separate tasks.

Two tasks share the queues. One writes, in batches by size and time. The other protects rows that
the exchange cannot serve again: while writing fails, hangs or falls behind, it moves those rows to
disk; they are replayed in order, before newer ones, once the database is back.

A row that the exchange cannot serve again is stored only after all earlier ones, and after the list
of losses contains all earlier losses. So a process that is killed at any moment leaves no
unrecorded loss.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import psycopg
import structlog
from psycopg import errors

from include.backoff import Backoff, RetryLoop
from include.errors import PermanentError, TransientError
from include.jobs.trades.by_id import record_raw_gaps
from include.store.postgres.pools import connect_async
from include.store.trades.captured import RAW_TABLES, RawTable, write_raw_async
from streamer.capture.intake.lanes import Lane, Lanes
from streamer.capture.repair.stored_rows_check import StoredRowsCheck
from streamer.capture.spool.disk import Disk
from streamer.capture.spool.losses import Loss, Losses
from streamer.capture.spool.segments import Record
from streamer.capture.spool.spool import Spool, losses_of, tally
from streamer.runtime.supervisor import run_together
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=0.4, max_s=10.0, min_s=0.05)
CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 60.0
LAST_DISK_S = 1.5
"""Seconds for the disk at a stop that has used up its time."""
POLL_S = 0.05
SPILL_INTERVAL_S = 0.25
SPILL_SHARE = 0.5
"""Share of the memory bound at which rows go to disk even if writing does not fail."""
REPEATS_EXPECTED_S = 30.0
"""Seconds after a duplicate row in which further duplicates are expected."""
ROW_REFUSED = "refused by the database"
DISK_REFUSED = "the disk took no spool while the database was away"


class CaptureWriter:
    """Writes the rows that wait in the lanes.

    Args:
        database_url: login of the role candelabra_streamer.
        batch_rows: rows of one write.
        flush_timeout_s: longest wait before a write.
        acknowledged: records stored rows, and checks whether they still exist.
    """

    def __init__(
        self,
        database_url: str,
        lanes: Lanes,
        spool: Spool,
        losses: Losses,
        *,
        batch_rows: int,
        flush_timeout_s: float,
        spill_interval_s: float = SPILL_INTERVAL_S,
        acknowledged: StoredRowsCheck | None = None,
    ) -> None:
        self.written: dict[str, int] = dict.fromkeys(RAW_TABLES, 0)
        """Number of new rows by table."""
        self.repeated = 0
        self.refused = 0
        self.replayed = 0
        self.is_spooling = not spool.is_empty
        """Whether rows that cannot be refetched go to disk."""
        self._url = database_url
        self._lanes = lanes
        self._spool = spool
        self._losses = losses
        self._batch_rows = batch_rows
        self._flush_timeout_s = flush_timeout_s
        self._spill_interval_s = spill_interval_s
        self._acknowledged = acknowledged
        self._disk = Disk()
        self._replay_failures = 0
        self._replay_from_s = 0.0
        """Time of the next attempt after the disk failed. Rows in memory do not wait for it."""
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._repeats_until_s: dict[str, float] = dict.fromkeys(RAW_TABLES, 0.0)

    async def run(self) -> None:
        """Write until cancelled."""
        await run_together(self._write_on(), self._spill_on(), name="capture_writer")

    async def flush(self) -> None:
        """Write the rows in memory, for a clean stop; the rest goes to disk.

        Rows already on disk stay there for the next start. If this call is cancelled because its
        time is up, it uses ``LAST_DISK_S`` for the disk.

        Raises:
            TransientError: PostgreSQL is unreachable, or the disk hangs.
            TimeoutError: the disk hangs.
        """
        is_written = False
        disk_s: float | None = None  # the caller has a timeout
        try:
            while self._due_rows:
                await self._connect()
                await self._write_lanes()
            is_written = True
        except asyncio.CancelledError:
            disk_s = LAST_DISK_S
            raise
        finally:
            self.is_spooling = self.is_spooling or not is_written
            async with asyncio.timeout(disk_s):
                await self._disconnect()
                await self._put_aside()

    # --- to the database

    async def _write_on(self) -> None:
        loop = RetryLoop(
            BACKOFF,
            retry_on=(TransientError, PermanentError, TimeoutError),  # must not end the stream
            on_failure=self._on_failure,
            on_retry=self._log_retry,
        )
        await loop.run(self._write_when_due)

    async def _write_when_due(self) -> None:
        if not self._is_behind:
            await self._pause()
        await self._write_round()

    async def _on_failure(self) -> None:
        self.is_spooling = True
        await self._disconnect()

    def _log_retry(self, *, attempt: int, retry_in_s: float, error: str) -> None:
        log.warning(
            "capture_postponed",
            error=error,
            waiting=self._lanes.waiting,
            spooled_bytes=self._spool.size_bytes,
            attempt=attempt,
            retry_in_s=retry_in_s,
        )

    async def _pause(self) -> None:
        """Wait until a batch is full, or its oldest row has waited long enough.

        Polled rather than signalled: a signal would make adding a row more expensive on the
        candles' path.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._flush_timeout_s
        while self._due_rows < self._batch_rows and loop.time() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(min(POLL_S, self._flush_timeout_s))

    @property
    def _is_behind(self) -> bool:
        """Whether rows on disk are due; they do not wait for a full batch."""
        if self._spool.is_empty:
            return self.is_spooling
        return asyncio.get_running_loop().time() >= self._replay_from_s

    async def _write_round(self) -> None:
        """Write a batch of each queue and of the disk, one after the other, each with its own
        timeout."""
        if not (self._lanes.waiting or self._is_behind or len(self._losses)):
            return
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await self._connect()
        await self._write_lanes()
        if self._spool.is_empty:
            self.is_spooling = False
        elif self._is_behind:
            await self._replay()
        if len(self._losses):
            await self._record_losses()

    @property
    def _due_rows(self) -> int:
        return sum(len(lane.rows) for lane in self._lanes.lanes if self._is_due(lane))

    def _is_due(self, lane: Lane) -> bool:
        """Whether a lane has rows for the database; while spooling, some go to the disk."""
        return bool(lane.rows) and (lane.can_be_requested or not self.is_spooling)

    async def _write_lanes(self) -> None:
        for lane in self._lanes.lanes:
            if self._is_due(lane):
                await self._write_lane(lane)

    async def _write_lane(self, lane: Lane) -> None:
        with self._lanes.removed(lane, self._batch_rows) as lines:
            if lane.can_be_requested:
                await self._write(lane.table, lines)
                return
            lane.in_flight = lines
            try:
                await self._save_losses()
                await self._write(lane.table, lines)
            finally:
                lane.in_flight = []

    async def _replay(self) -> None:
        """Write the oldest record from disk; report its losses before writing a later one."""
        try:
            found = await self._disk.call(self._spool.read, name="replay", on_late=self._note_lost)
        except OSError as error:
            self._replay_failures += 1
            wait_s = BACKOFF.wait_s(self._replay_failures)
            self._replay_from_s = asyncio.get_running_loop().time() + wait_s
            log.error(  # noqa: TRY400 - the message says it all
                "spool_unreadable",
                error=str(error),
                spooled_bytes=self._spool.size_bytes,
                retry_in_s=round(wait_s, 2),
            )
            return
        self._replay_failures = 0
        if isinstance(found, Record):
            table = RAW_TABLES[found.dataset]
            await self._write(table, table.padded(found.lines))
            self.replayed += len(found.lines)
            await self._disk.call(self._spool.done, name="replay")
        else:
            self._note_lost(found)
            await self._save_losses()

    def _note_lost(self, found: Record | list[Loss] | None) -> None:
        if isinstance(found, list):
            self._losses.add(found)

    async def _write(self, table: RawTable, lines: list[str]) -> None:
        """Write rows; if PostgreSQL refuses one of them, the others are still stored."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                new, has_repeats = await write_raw_async(
                    self._connected(),
                    table,
                    lines,
                    expect_repeats=loop.time() < self._repeats_until_s[table.name],
                )
        except PermanentError as error:
            if not isinstance(error.__cause__, (errors.DataError, errors.IntegrityError)):
                raise  # the rows are valid: a privilege or a table is missing
            if len(lines) == 1:
                self.refused += 1
                log.error(  # noqa: TRY400 - the message says it all
                    "raw_row_refused", table=table.name, row=lines[0].rstrip(), error=str(error)
                )
                counted: dict[tuple[str, str], list[int]] = {}
                tally(table.name, lines, counted)
                self._losses.add(losses_of(counted, ROW_REFUSED))
                return
            middle = len(lines) // 2
            await self._write(table, lines[:middle])
            await self._write(table, lines[middle:])
            return
        if self._acknowledged is not None:
            self._acknowledged.note(table, lines)
        self.written[table.name] += new
        self.repeated += len(lines) - new
        if has_repeats:
            self._repeats_until_s[table.name] = loop.time() + REPEATS_EXPECTED_S

    async def _record_losses(self) -> None:
        gaps = self._losses.take()
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await in_thread(
                lambda: record_raw_gaps(database_url=self._url, gaps=gaps), name="losses"
            )
        new = [gap for gap in gaps if not self._losses.is_known(gap)]
        self._losses.forget(gaps)  # the spiller updates the file
        for gap in new:
            log.warning(
                "raw_rows_lost",
                table=gap.dataset,
                symbol=gap.symbol,
                cause=gap.cause,
                **gap.detail,
            )

    # --- to the disk

    async def _spill_on(self) -> None:
        spill_rows = int(SPILL_SHARE * self._lanes.max_rows)
        while True:
            await asyncio.sleep(self._spill_interval_s)
            held = sum(len(lane.rows) for lane in self._lanes.lanes if not lane.can_be_requested)
            if held > spill_rows and not self.is_spooling:
                log.warning("capture_falls_behind", rows=held)
                self.is_spooling = True
            try:
                await self._save_acknowledged()
                while await self._spill():
                    pass
                await self._save_losses()
            except TransientError as error:  # rows stay in memory, which is bounded
                log.error("capture_disk_hangs", error=str(error))  # noqa: TRY400

    async def _put_aside(self) -> None:
        """Save to disk what the next start needs."""
        await self._save_acknowledged()
        while await self._spill():
            pass
        await self._save_losses()
        try:
            await self._disk.call(self._spool.close, name="spool")
        except OSError as error:
            log.error("spool_not_synced", error=str(error))  # noqa: TRY400

    async def _spill(self) -> bool:
        """Move a batch of each queue that needs it to disk; return whether there was one."""
        moved = False
        for lane in self._lanes.lanes:
            if lane.can_be_requested or not lane.rows or not self.is_spooling:
                continue
            moved = True
            # If cancelled midway, the rows may be on disk too; the table stores them once.
            with self._lanes.removed(lane, self._batch_rows) as lines:
                await self._save_losses()
                if lane.in_flight:  # these are older rows: a kill may end the write in progress
                    earlier, lane.in_flight = lane.in_flight, []
                    await self._append(Record(lane.table.name, earlier), is_in_memory=True)
                await self._append(Record(lane.table.name, lines))
        return moved

    async def _append(self, record: Record, *, is_in_memory: bool = False) -> None:
        """Append rows to the spool; if the disk refuses, rows that exist nowhere else are lost."""
        try:
            dropped = await self._disk.call(
                partial(self._spool.append, record), name="spool", on_late=self._losses.add
            )
        except OSError as error:
            log.error("spool_refused", error=str(error), rows=len(record.lines))  # noqa: TRY400
            if is_in_memory:
                return
            counted: dict[tuple[str, str], list[int]] = {}
            tally(record.dataset, record.lines, counted)
            dropped = losses_of(counted, DISK_REFUSED)
        self._losses.add(dropped)

    async def _save_losses(self) -> None:
        """Save the list of losses, unless the disk refuses."""
        if self._losses.is_saved:
            return
        try:
            await self._disk.call(self._losses.save, name="losses")
        except OSError as error:
            log.error("capture_losses_unsaved", error=str(error))  # noqa: TRY400

    async def _save_acknowledged(self) -> None:
        """Save which rows are stored before later ones go to disk, unless the disk refuses."""
        acknowledged = self._acknowledged
        if acknowledged is None or not (self.is_spooling or acknowledged.is_outdated):
            return
        await self._save_losses()  # rows whose loss is recorded are left out
        save = acknowledged.saving()
        if save is None:
            return
        try:
            await self._disk.call(save, name="acknowledged")
        except OSError as error:
            log.error("acknowledged_rows_unsaved", error=str(error))  # noqa: TRY400

    # --- the connection

    async def _connect(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await connect_async(
                self._url, application_name="candelabra-capture", timeout_s=CONNECT_TIMEOUT_S
            )
            self._losses.record_again()
            if self._acknowledged is not None:
                await self._acknowledged.check()
        elif self._acknowledged is not None and self._acknowledged.is_due:
            await self._acknowledged.check()

    def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None:
            raise TransientError("no database connection")
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
