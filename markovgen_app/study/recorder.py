"""Takes answers from many connections at once: those that arrive together share one transaction and one sync."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread

from .store import Answer, Receipt, Store

_MOST_AT_ONCE = 256


class Recorder:
    """A thread that writes answers to a store, in the order in which they are submitted.

    While one transaction is synced to disk, the next answers gather, so that a slow disk costs time and no throughput.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: SimpleQueue[tuple[Answer, Future[Receipt]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="study-recorder", daemon=True)
        self._thread.start()

    def submit(self, answer: Answer) -> Future[Receipt]:
        """The receipt to come, once the answer is durable, or the exception that says why there is none."""
        future: Future[Receipt] = Future()
        self._waiting.put((answer, future))
        return future

    def stop(self) -> None:
        """Write down what was submitted, then end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            first = self._waiting.get()
            batch = [first]
            try:
                while len(batch) < _MOST_AT_ONCE:
                    batch.append(self._waiting.get_nowait())
            except Empty:
                pass
            self._write([each for each in batch if each is not None])
            if None in batch:
                return

    def _write(self, batch: list[tuple[Answer, Future[Receipt]]]) -> None:
        """Write answers down, also of those who have hung up since, and tell those who wait."""
        waiting = [future.set_running_or_notify_cancel() for _, future in batch]
        results: Sequence[Receipt | Exception]
        try:
            results = self._store.record([answer for answer, _ in batch])
        except Exception as error:  # the database is gone or full: everyone who waits is told, and sends again
            results = [error] * len(batch)
        for (_, future), waits, result in zip(batch, waiting, results, strict=True):
            if not waits:
                continue
            if isinstance(result, Receipt):
                future.set_result(result)
            else:
                future.set_exception(result)
