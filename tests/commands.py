"""The command line as tests run it: in a process of its own, new or forked off, or in this one; the last two spare the
imports, which take as long as a hundred steps."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from tinymim.cli.main import main
from tinymim.experiments import fit_processes
from tinymim.system import SIGNALS

PROJECT = Path(__file__).resolve().parents[1]

Completed = subprocess.CompletedProcess[str]


def spawned(*arguments: str | Path, cwd: Path = PROJECT, **environment: str) -> Completed:
    """Run ``tinymim`` in a process of its own; for what needs one: several ranks, the user's shell, an exit code."""
    command = [sys.executable, "-m", "tinymim", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port()), **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900)


def tinymim(*arguments: str | Path, cwd: Path = PROJECT, **environment: str) -> Completed:
    """Run ``tinymim`` in this process, and leave it as it was: folder, environment, imports of user's modules."""
    out, err = io.StringIO(), io.StringIO()
    with isolated(cwd, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as ended:  # as argparse and LightningCLI end
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        finally:
            if dist.is_initialized():  # by a strategy of several processes: a command would end, and the tests go on
                dist.destroy_process_group()
    return subprocess.CompletedProcess(["tinymim", *map(str, arguments)], code, out.getvalue(), err.getvalue())


class Forked:
    """``python -m MODULE`` as a process of its own in a session of its own, forked from a server that has the imports.

    For what befalls a process: signals, kills, ranks. All that it starts itself are new processes, as a user's are. It
    has the methods of ``Popen`` that tests use.

    Args:
        arguments: of the command.
        log: gets its output.
        module: with another name than ``__main__``'s.
        cwd: its working folder.
        environment: variables beside those that are there.
    """

    def __init__(
        self, *arguments: str | Path, log: Path, module: str = "tinymim", cwd: Path = PROJECT, **environment: str
    ):
        self.log = log
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port()), **environment}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(fit_processes.PRELOADED)
        given = (module, [*map(str, arguments)], cwd, variables, log)
        self._process = context.Process(target=_run_module, args=given)
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(["tinymim"], timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def ended(self, seconds: float = 900) -> tuple[int, str]:
        """Exit code and output, or a failure if it hangs."""
        try:
            code = self.wait(seconds)
        finally:
            if self.poll() is None:
                os.killpg(self.pid, signal.SIGKILL)
        return code, self.log.read_text()


def _run_module(module: str, arguments: list[str], cwd: Path, environment: dict[str, str], log: Path) -> None:
    """In the forked process: what a new Python would do."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    multiprocessing.set_start_method(None, force=True)  # its own children are started as a new Python would
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [str(cwd), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    torch.set_num_threads(1)
    sys.argv = [sys.argv[0], *arguments]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which the end of a forked process leaves out


class InThisProcess:
    """``python -m tinymim`` as a child process that has ended: run here, which spares the imports of another one."""

    pid = 0

    def __init__(self, command: list[str], log: Any = None):
        result = tinymim(*command[command.index("tinymim") + 1 :], cwd=Path.cwd())
        self.returncode = result.returncode
        if log is not None:
            log.write((result.stdout + result.stderr).encode())
            log.flush()

    def poll(self) -> int:
        return self.returncode


@contextlib.contextmanager
def without_children() -> Iterator[None]:
    """Commands run the commands that they start in this process."""
    popen = subprocess.Popen

    def child(command: Any, *arguments: Any, **options: Any) -> Any:
        ours = isinstance(command, list) and "tinymim" in command
        return InThisProcess(command, options.get("stdout")) if ours else popen(command, *arguments, **options)

    def fork(words: list[str], log: Path | None, threads: int, gpus: list[str]) -> InThisProcess:
        with log.open("ab") if log else contextlib.nullcontext() as stream:
            return InThisProcess(["tinymim", *words], stream)

    with mock.patch.object(subprocess, "Popen", child), mock.patch.object(fit_processes, "Fork", fork):
        yield


def free_port() -> int:
    """A port on loopback that no other test is given meanwhile, and no connection, as the system takes higher ones."""
    for port in range(10_000 + os.getpid() * 20 % 20_000, 32_000):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


@contextlib.contextmanager
def isolated(cwd: Path, environment: dict[str, str]) -> Iterator[None]:
    """A working folder, variables beside those that are there, and ``PYTHONPATH`` as a new process would take it."""
    own = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    known = set(sys.modules)
    with contextlib.chdir(cwd), mock.patch.dict(os.environ, environment), mock.patch("sys.path", [*own, *sys.path]):
        importlib.invalidate_caches()
        try:
            yield
        finally:
            for name in set(sys.modules) - known:
                file = getattr(sys.modules[name], "__file__", None)
                if file and any(Path(path) in Path(file).parents for path in (*own, str(cwd)) if path != str(PROJECT)):
                    del sys.modules[name]


def refused(result: Completed, *words: str) -> None:
    """Exit code 1, the words, and no traceback."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
