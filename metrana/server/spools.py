"""Delivery from spools: dead writers are finished, live ones without a sender are followed.

The same passes serve the server (again and again), `metrana sync` and the embedded client (until
nothing is left). A writer is pumped a few megabytes a pass, so a large spool of a dead one does
not keep a live run from being seen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from metrana import _native
from metrana.server.catalog import OpenRun, RunRefusal, WriterOpening, WriterRecord
from metrana.server.ingest import Ingestor
from metrana.server.sessions import IngestRefusedError, Progress, SealedBatch, WriterSession
from metrana.server.store_faults import reason
from metrana.spool_damage import damage_sentences
from metrana.spool_folders import has_writers

_log = logging.getLogger(__name__)

LOCAL: Final = "local"
_PASS_S: Final = 0.25
_PUMP_BYTES: Final = 8 << 20
_SETTLE_S: Final = 0.01
_PUT_OFF_S: Final = 30.0
_FAILED_PASS_S: Final = 1.0
# A folder that changed this short a time ago may change again under the same time: the kernel's
# clock of files ticks every few milliseconds, and some file systems keep whole seconds.
_YOUNG_NS: Final = 2_000_000_000


@dataclass(slots=True)
class DeliveryReport:
    """What passes over the spools came to.

    Attributes:
        delivered: `project/run` and writer number of each writer that was finished.
        following: The same of each live writer that is followed.
        sending: Ids of live writers that have a sender of their own.
        batch_count: Batches brought to the stores.
        problems: What could not be delivered and what spools lost, in sentences.
        warnings: What was delivered otherwise than it was asked for, in sentences.
    """

    delivered: list[tuple[str, int]] = field(default_factory=list)
    following: list[tuple[str, int]] = field(default_factory=list)
    sending: set[str] = field(default_factory=set)
    batch_count: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _WriterDelivery:
    """One writer's spool on its way into the stores."""

    def __init__(
        self,
        folder: Any,
        writer: Any,
        recovery: Any | None,
        ingestor: Ingestor,
        say: Callable[[str], None],
    ) -> None:
        self.name = f"{folder.run['project_name']}/{folder.run['run_name']}"
        self.number: int = writer.number
        self.batch_count = 0
        self.warning: str | None = None
        self.is_dead = False
        self._folder = folder
        self._ingestor = ingestor
        self._progress = Progress()
        self._held = ExitStack()
        self._noted = 0
        self._submitted = 0
        self._is_whole = True
        self._end_submitted = False
        # At once: whatever else goes wrong, what a recovery found out is not found out again.
        self._say = say
        self._damage_count = self._problem_count = 0
        try:
            self._record, is_new = self._open_run(writer, alive=recovery is None)
            if recovery is not None:
                self._recover(recovery)
            # What recovery finds out of a dead writer says where its spool begins. What somebody
            # acknowledged is read too: it may have been another store, before the spool was copied.
            self._follower = _native.SpoolFollower(writer.path, from_oldest=True)
            self._session = self._open_session(is_new=is_new)
            self._gone = self._find_gone()
        except BaseException:  # whatever it is, the lock goes first
            self._held.close()
            raise

    @property
    def problem(self) -> IngestRefusedError | None:
        """Why it cannot go on."""
        return self._progress.refusal

    @property
    def is_complete(self) -> bool:
        """The writer is ended and all it left is durable."""
        return self._progress.is_ended

    @property
    def awaits_end(self) -> bool:
        """Everything was submitted and its end is about to be recorded."""
        return self._end_submitted

    @property
    def is_cut(self) -> bool:
        """Neither the spool nor the stores have what it began with."""
        return self._gone is not None

    @property
    def is_settled(self) -> bool:
        """All that was found so far is durable."""
        return self._progress.acked >= self._submitted

    def take_over(self, recovery: Any) -> None:
        """Goes on with a writer that died: seals what its ring holds; its lock is kept."""
        self._recover(recovery)
        self._follower.writer_has_ended()

    def pump(self) -> bool:
        """Submits what is sealed, up to a few megabytes; True if there was nothing more. Blocks."""
        self._session.heard_at = time.monotonic()
        messages = self._follower.read(_PUMP_BYTES)
        self._session.lost = [(first, last) for first, last, _ in self._follower.damage()]
        found = damage_sentences(self._follower)
        self._tell(found[self._damage_count :])
        self._damage_count = len(found)
        for message in messages:
            self._take(message)
        self._note()
        if not messages and self.is_dead and self._is_whole and not self._end_submitted:
            # The catalog knows whether a close record came; a writer without one is lost.
            self._ingestor.end(self._session, died=True)
            self._end_submitted = True
        return not messages

    def finish(self) -> None:
        """Removes the folder of a writer whose every batch is durable.

        It is kept if only another store has what it began with, and marked: another delivery, by
        whoever it is, would take what is stored by now for all of it.
        """
        self._note()
        if self._gone is not None:
            self._folder.keep(self.number, *self._gone)
            self._tell([self._folder.missing(self.number, *self._gone)])
        self.close()
        if self._gone is None:
            self._folder.remove_delivered(self.number)

    def close(self) -> None:
        """Stops; what is not acknowledged stays in the spool."""
        self._ingestor.close_session(self._session)
        self._tell_problems()
        self._held.close()

    def _take(self, message: Any) -> None:
        if message.kind == "declarations":
            self._session.declare(self._ingestor.catalog, message.payload, message.crc)
            return
        batch = SealedBatch(message.seq, message.kind, message.payload, message.crc, message.urgent)
        if not self._session.admit(batch):
            return
        if not self._session.has(batch):
            self._ingestor.submit(self._session, batch)
            self._submitted = batch.seq
            self.batch_count += 1
        elif self.batch_count == 0:  # nothing before it waits to be stored
            self._submitted = self._progress.acked = batch.seq

    def _note(self) -> None:
        """Tells the writer what is durable, so that it can free segments; says what is not kept."""
        self._tell_problems()
        acked = self._progress.acked
        if acked > self._noted:
            # Some of it may have been stored already, of which the ingestor knows nothing.
            self._session.note_stored(acked)
            self._follower.acknowledge(acked)
            self._noted = acked

    def _tell_problems(self) -> None:
        problems = self._progress.problems[self._problem_count :]
        self._problem_count += len(problems)
        self._tell(problems)

    def _tell(self, problems: list[str]) -> None:
        for problem in problems:
            self._say(_about(self._folder, self.number, problem))

    def _recover(self, recovery: Any) -> None:
        self._held.enter_context(recovery)
        self.is_dead = True
        self._is_whole = recovery.report["is_complete"]
        self._tell(recovery.report["problems"])

    def _open_run(self, writer: Any, *, alive: bool) -> tuple[WriterRecord, bool]:
        """Opens the writer's run; True if the catalog met the writer only now."""
        catalog = self._ingestor.catalog
        answer = catalog.open_run(_open_run(self._folder.run, writer, alive=alive))
        if isinstance(answer, RunRefusal):
            raise IngestRefusedError(answer.code.name, answer.message)
        self.warning = answer.warning
        record = catalog.writer(writer.writer_id)
        if record is None:
            raise IngestRefusedError("RUN_NOT_FOUND", f"writer {writer.writer_id} is not known")
        return record, answer.new_writer

    def _open_session(self, *, is_new: bool) -> WriterSession:
        if self.is_dead:
            self._follower.writer_has_ended()
        first = self._follower.first_seq
        self._noted = self._follower.acknowledged
        self._submitted = self._progress.acked = first - 1
        return self._ingestor.open_session(self._record, self._progress, first, new=is_new)

    def _find_gone(self) -> tuple[int, int] | None:
        """Tells the first and the last batch that neither the spool nor the stores have."""
        gone = (self._session.stored_seq + 1, self._follower.first_seq - 1)
        if gone[0] > gone[1]:
            return None
        if not (self.is_dead and self._is_whole):
            # Nobody must be told yet what to do with the folder.
            self._tell([self._folder.missing_so_far(*gone)])
        return gone


class SpoolDelivery:
    """Delivers what lies in a data directory's spools for the local store.

    One thread at a time may use it, but for `stop`.

    Args:
        data_dir: The data directory.
        ingestor: Where batches go.
        force: Finish writers of other machines too, of which nobody here knows whether they live.
    """

    def __init__(self, data_dir: Path, ingestor: Ingestor, *, force: bool = False) -> None:
        self.report = DeliveryReport()
        self._force = force
        self._spool_dir = data_dir / "spool"
        self._ingestor = ingestor
        self._active: dict[tuple[str, int], _WriterDelivery] = {}
        # When a writer that failed is looked at again, on the monotonic clock, and what was said.
        # Number 0: the folder itself.
        self._put_off: dict[tuple[str, int], tuple[float, str]] = {}
        # What was said of damage: a writer that is put off is read again.
        self._said: set[str] = set()
        # Folders without a writer, by the time of their last change.
        self._idle: dict[str, int] = {}
        self._stop = threading.Event()
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """Why no spool can be delivered at present; None if all is well."""
        return self._fault

    def run(self) -> None:
        """Makes passes until `stop`. Blocks."""
        while not self._stop.is_set():
            pause = _PASS_S
            try:
                if self.make_pass():
                    pause = _SETTLE_S
            except Exception as error:  # noqa: BLE001 - nobody else would deliver, for as long as we serve
                if self._fault is None:
                    _log.error("spools cannot be delivered, trying again", exc_info=error)
                self._fault = f"spools cannot be delivered: {reason(error)}"
                pause = _FAILED_PASS_S
            else:
                self._fault = None
            self._stop.wait(pause)
        self.close()

    def stop(self) -> None:
        """Ends `run`. Thread-safe; does not block."""
        self._stop.set()

    def deliver_all(self) -> DeliveryReport:
        """Makes passes until all that is sealed now is durable. Blocks.

        Live writers that have no sender are read as far as they have sealed.
        """
        while not self._stop.is_set():
            busy = self.make_pass()
            unsettled = any(
                delivery.awaits_end or not delivery.is_settled for delivery in self._active.values()
            )
            if not busy and not unsettled:
                break
            self._stop.wait(_SETTLE_S)
        self.close()
        return self.report

    def make_pass(self) -> bool:
        """Looks at every writer once; True if there is more to do at once."""
        busy = False
        for folder, writers in self._folders():
            for writer in writers:
                key = (folder.path, writer.number)
                if self._is_put_off(key):
                    continue
                try:
                    busy |= self._attend(folder, writer, key)
                except Exception as error:  # noqa: BLE001 - one must not stop the others
                    self._fail(key, folder, writer, error)
        followed = (one for one in self._active.values() if not one.is_dead)
        self.report.following = [(one.name, one.number) for one in followed]
        return busy

    def close(self) -> None:
        """Stops following; everything not acknowledged stays in the spools."""
        for delivery in self._active.values():
            delivery.close()
        self._active.clear()

    def _folders(self) -> Iterator[tuple[Any, list[Any]]]:
        try:
            paths = sorted(path for path in self._spool_dir.iterdir() if path.is_dir())
        except FileNotFoundError:
            return
        for path in paths:
            if self._is_put_off((str(path), 0)):
                continue
            try:
                found = self._look_into(path)
            except FileNotFoundError:
                continue  # it was delivered by somebody else meanwhile
            except Exception as error:  # noqa: BLE001 - whatever it is, other folders are not to blame
                self._put_off_with((str(path), 0), f"cannot read {path}: {error}")
                continue
            if found is not None:
                yield found

    def _look_into(self, path: Path) -> tuple[Any, list[Any]] | None:
        """Reads a run's folder; None if there is nothing to deliver."""
        changed = path.stat().st_mtime_ns
        if self._idle.get(str(path)) == changed:
            return None
        if not (path / "run.json").exists() and not has_writers(path):
            return None  # not yet: its process has only just made the folder
        folder = _native.RunFolder(path)
        writers = folder.writers()
        if folder.run["destination"] == LOCAL and writers:
            return folder, writers
        # A clock that was set back leaves times in the future.
        if abs(time.time_ns() - changed) > _YOUNG_NS:
            self._idle[str(path)] = changed
        return None

    def _attend(self, folder: Any, writer: Any, key: tuple[str, int]) -> bool:
        delivery = self._active.get(key)
        if delivery is None:
            if writer.writer_id is None and writer.undelivered:
                raise RuntimeError(writer.problem)
            if writer.kept is not None:
                self._say(_about(folder, writer.number, writer.kept))
                return False
            if not self._is_over(writer) and writer.sender != "none":
                if writer.state == "live" and writer.writer_id is not None:
                    self.report.sending.add(writer.writer_id)
                return False
            delivery = self._begin(folder, writer)
            self._active[key] = delivery
        elif self._is_over(writer) and not delivery.is_dead:
            delivery.take_over(folder.recover(writer.number, self._force))
        if delivery.problem is not None:
            raise delivery.problem
        before = delivery.batch_count
        exhausted = delivery.pump()
        self.report.batch_count += delivery.batch_count - before
        if delivery.is_complete:
            del self._active[key]
            delivery.finish()
            if not delivery.is_cut:
                self.report.delivered.append((delivery.name, delivery.number))
            return True
        return not exhausted or delivery.awaits_end

    def _begin(self, folder: Any, writer: Any) -> _WriterDelivery:
        """Opens a writer's run, and takes over from one that is dead."""
        is_over = self._is_over(writer)
        recovery = folder.recover(writer.number, self._force) if is_over else None
        delivery = _WriterDelivery(folder, writer, recovery, self._ingestor, self._say)
        if delivery.warning:
            self.report.warnings.append(delivery.warning)
            _log.warning("%s", delivery.warning)
        return delivery

    def _is_over(self, writer: Any) -> bool:
        return writer.state == "dead" or (self._force and writer.state == "foreign")

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self.report.problems.append(sentence)
            _log.warning("%s", sentence)

    def _fail(self, key: tuple[str, int], folder: Any, writer: Any, error: Exception) -> None:
        """Puts a writer off; says why, once as long as the reason is the same.

        That somebody else delivers it, or asks whether it lives, is not worth a word.
        """
        delivery = self._active.pop(key, None)
        run = folder.run
        sentence = (
            f"writer {writer.number} of run {run['project_name']}/{run['run_name']} was not "
            f"delivered: {error}"
        )
        if isinstance(error, BlockingIOError) or not Path(writer.path).exists():
            _log.debug("%s", sentence)
            _, said = self._put_off.get(key, (0.0, ""))
            self._put_off[key] = (time.monotonic() + _PASS_S, said)
        elif not self._stop.is_set():  # else the server is going away, which is not worth a word
            self._put_off_with(key, sentence)
        if delivery is not None:
            delivery.close()

    def _is_put_off(self, key: tuple[str, int]) -> bool:
        return self._put_off.get(key, (0.0, ""))[0] > time.monotonic()

    def _put_off_with(self, key: tuple[str, int], sentence: str) -> None:
        _, said = self._put_off.get(key, (0.0, ""))
        self._put_off[key] = (time.monotonic() + _PUT_OFF_S, sentence)
        if said != sentence:
            self.report.problems.append(sentence)
            _log.warning("%s", sentence)


def _about(folder: Any, number: int, what: str) -> str:
    run = folder.run
    return f"writer {number} of run {run['project_name']}/{run['run_name']}: {what}"


def _open_run(run: dict[str, Any], writer: Any, *, alive: bool) -> OpenRun:
    info = writer.info
    return OpenRun(
        run_id=run["run_id"],
        writer=WriterOpening(
            writer_id=writer.writer_id,
            number=writer.number,
            opened_at_ms=info["opened_at_ms"],
            logger_id=info["logger_id"],
            host=info["host"],
            pid=info["pid"],
            client_version=info["client_version"],
            alive=alive,
        ),
        created_at_ms=run["created_at_ms"],
        workspace_name=run["workspace_name"],
        project_name=run["project_name"],
        run_name=run["run_name"],
        experiment_name=run["experiment_name"],
        orchestration_id=run["orchestration_id"],
        resume_strategy=info["resume_strategy"],
        name_conflict="rename",
    )
