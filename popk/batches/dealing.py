"""Who does the tasks? Processes of this machine, or a Dask scheduler; whoever is lost is replaced.

A process is started for itself and told its tasks, and is no fork: JAX does not outlive one. So it needs
nothing of the program that asks, and one that is killed takes no other with it.
"""

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from popk.batches.jobs import BatchError
from popk.batches.work import Task, perform
from popk.inference.compilation import cache_folder


class Event(NamedTuple):
    """What happened to a task.

    Attributes
    ----------
    number : int
        Of the task.
    outcome : dict, optional
        What came of it; None where it began.
    attempts : int
        How many times it was begun.
    """

    number: int
    outcome: dict[str, Any] | None
    attempts: int


def dealt(tasks: Sequence[Task], processes: int, retries: int) -> Iterator[Event]:
    """Yield when tasks begin and end on processes of this machine.

    Parameters
    ----------
    tasks : sequence of Task
    processes : int
    retries : int
        How many times a task is begun again whose process was lost.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(tasks)):
        waiting.put(number)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    count = min(processes, len(tasks))
    workers = [_Worker(max(1, (os.cpu_count() or 1) // count)) for _ in range(count)]
    threads = [
        threading.Thread(target=_serve, args=(worker, tasks, waiting, events, retries), daemon=True)
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    try:
        left = len(tasks)
        while left:
            event = events.get()
            left -= event.outcome is not None
            yield event
    finally:
        for worker in workers:
            worker.dismiss()
        for thread in threads:
            thread.join(timeout=10)


def _serve(
    worker: "_Worker", tasks: Sequence[Task], waiting: Any, events: Any, retries: int
) -> None:
    """Give a worker one task after the other."""
    with contextlib.closing(worker):
        while not worker.dismissed:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            outcome, attempts = None, 0
            while outcome is None and attempts <= retries and not worker.dismissed:
                attempts += 1
                events.put(Event(number, None, attempts))
                outcome = worker.answer(tasks[number])
            if outcome is None:
                outcome = {"why": f"its process was lost {attempts} times ({worker.last})"}
            events.put(Event(number, outcome, attempts))


class _Worker:
    """A process that answers; another one takes its place when it is lost."""

    def __init__(self, threads: int):
        self.threads, self.last, self.dismissed = threads, "", False
        self.process: subprocess.Popen[str] | None = None
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115

    def answer(self, task: Task) -> dict[str, Any] | None:
        """Return what came of a task, None if the process was lost on the way."""
        process = self.process or self._started()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            said = process.stdout.readline()
        except OSError:
            said = ""
        if said.endswith("\n"):
            return json.loads(said)
        code = self._ended()
        self.log.seek(0)
        lines = [line for line in self.log.read().splitlines() if line.strip()]
        self.last = f"signal {-code}" if code < 0 else f"exit code {code}: {(lines or [''])[-1]}"
        return None

    def dismiss(self) -> None:
        """End the process, whatever it does; who waits for its answer hears of it."""
        self.dismissed, process = True, self.process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, of which nothing is asked any more."""
        self.dismiss()
        self._ended()
        self.log.close()

    def _started(self) -> subprocess.Popen:
        one = str(self.threads)
        limits = dict.fromkeys(
            # XLA's pool of threads, and those of NumPy's and SciPy's libraries.
            ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), one
        )  # fmt: skip
        own = {
            "JAX_ENABLE_X64": str(int(jax.config.read("jax_enable_x64"))),
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir
            or str(cache_folder()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "popk.batches.worker"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True, encoding="utf-8",
            env={**limits, **os.environ, **own},
        )  # fmt: skip
        if self.dismissed:
            self.process.kill()
        return self.process

    def _ended(self) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was to be told to a lost process
                    pipe.close()
        return code


def scheduled(tasks: Sequence[Task], address: str, retries: int) -> Iterator[Event]:
    """Yield when tasks end on the workers of a Dask scheduler, which see the same files.

    Parameters
    ----------
    tasks : sequence of Task
    address : str
        Of the scheduler, ``tcp://host:8786``.
    retries : int

    Raises
    ------
    BatchError
        Dask is not installed, or there is no scheduler at the address.
    """
    if importlib.util.find_spec("distributed") is None:
        raise BatchError(
            "a Dask scheduler needs popk[distributed]: pip install 'popk[distributed]'"
        )
    from distributed import Client, as_completed

    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise BatchError(f"there is no Dask scheduler at {address}: {error}") from error
    with client:
        # `pure`: two tasks are never one, whatever they look like.
        asked = {
            client.submit(_alone, task, retries=retries, pure=False): number
            for number, task in enumerate(tasks)
        }
        for number in asked.values():
            yield Event(number, None, 1)
        for future in as_completed(asked):
            lost = future.status != "finished"
            outcome = {"why": f"{future.exception()}"} if lost else future.result()
            yield Event(asked[future], outcome, 1)


def _alone(task: Task) -> dict[str, Any]:
    """Return what came of a task on a worker of Dask, whose locks xarray is not to ask for."""
    from dask import config

    with config.set(scheduler="synchronous"):
        return perform(task)
