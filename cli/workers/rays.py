"""Workers as tasks of a Ray cluster, where Ray is installed; every machine sees documents, models and results alike."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
from contextlib import ExitStack, redirect_stdout
from types import TracebackType
from typing import Any

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ...loaders.batches.unit import Unit, unit_of, work
from .loop import Ended, Step, Tell

LOCAL = "local"  # Ray's word for a cluster of this machine alone
STORE = 80_000_000  # bytes of Ray's object store, which holds nothing of ours: else 30 % of the memory
PATIENCE = 20.0  # seconds that tasks have for cleaning up


class Rays:
    """One task for each unit, with its cores, its memory and, for sums on a GPU, a GPU. Ray itself retries nothing."""

    def __init__(self, address: str, threads: int, gpu: bool) -> None:
        self._ray, self._threads, self._gpu = _connected(address), threads, gpu
        have = self._ray.cluster_resources()
        self.slots = max(1, int(have.get("GPU", 0) if gpu else have.get("CPU", 1) // threads))
        self._python = python_of(sys.executable) if address == LOCAL else {}  # other machines have one of their own
        self._task = self._ray.remote(max_retries=0, max_calls=1)(_do)
        self._running: dict[Any, threading.Thread] = {}
        self._quiet = ExitStack()

    def start(self, unit: Unit, tell: Tell) -> None:
        """Send a unit to the cluster. From the first one to ``stop`` what Ray prints goes to standard error."""
        if not self._running:
            self._quiet.enter_context(redirect_stdout(sys.stderr))
        variables = {"OMP_NUM_THREADS": str(self._threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment = {"env_vars": variables, **self._python}
        wanted = {"num_cpus": self._threads, "num_gpus": int(self._gpu), "memory": unit.memory_bytes}
        answer = self._task.options(**wanted, runtime_env=environment).remote(unit.to_text())
        thread = threading.Thread(target=self._follow, args=(answer, unit, tell), daemon=True)
        self._running[answer] = thread
        thread.start()

    def stop(self) -> None:
        """Interrupt what still runs, as Ctrl-C would, and leave the cluster."""
        running = [(answer, thread) for answer, thread in self._running.items() if thread.is_alive()]
        for answer, _ in running:
            self._ray.cancel(answer, force=False)
        for _, thread in running:
            thread.join(PATIENCE)
        self._ray.shutdown()
        self._quiet.close()

    def _follow(self, answer: Any, unit: Unit, tell: Tell) -> None:
        fault, known = "", self._ray.exceptions
        try:
            fault = self._ray.get(answer)
            if not fault:
                tell(Step(unit, 1, 1))
        except known.RayError as error:
            fault = f"Ray says: {_last_line(str(error))}"
            died = isinstance(error, (known.WorkerCrashedError, known.OutOfMemoryError))
            failed = isinstance(error, known.RayTaskError) and isinstance(error.cause, TaskFailed)
            if died or failed:  # it had begun
                tell(Step(unit, 0, 1))
        tell(Ended(unit, fault))


def python_of(path: str) -> dict[str, str]:
    """How Ray is told of a Python whose path a shell would take apart: Ray hands it to one as it is."""
    quoted = shlex.quote(path)
    return {} if quoted == path else {"py_executable": quoted}


class TaskFailed(Exception):
    """What a task ended with that is no fault of a document; a task that could not begin ends with something else."""


class _Begun:
    """Calls by their name whatever comes out of its block."""

    def __enter__(self) -> None:
        """The task has begun."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            raise TaskFailed(f"{type(error).__name__}: {error}") from error


def _do(text: str) -> str:
    """What runs on a machine of the cluster, the same as in a process: why it could not be done, or nothing."""
    with _Begun():
        try:
            work(unit_of(text))
        except FoundryError as error:  # as text, for its parts would not survive the way back
            return str(error)
    return ""


def _connected(address: str) -> Any:
    """Ray, connected to the cluster that was named: no variable of the environment decides which."""
    if address == "auto":
        raise refuse("ray.address")
    if __name__.partition(".")[0] != "lora_foundry":  # the name that the workers import it by
        raise refuse("ray.installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it reports to its makers unless this is set before the import
    try:
        import ray
    except ImportError:
        raise refuse("ray.missing") from None
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **(own if address == LOCAL else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise refuse("ray.unreachable", address=address, said=_last_line(str(error))) from error
    return ray


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:300]
