"""Answering in several processes of this machine, each with the model on a device of its own."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from medkit.clusters import find_ray, start_ray
from medkit.errors import MedkitError, ModelError
from medkit.evaluation.questions import Question
from medkit.evaluation.replies import Key, append_replies, read_replies
from medkit.progress import bar, hide_bars

Asked = dict[str, list[Question]]
Answered = tuple[dict[Key, dict[str, Any]], dict[str, Any]]
PATTERN, STOP = "replica-*", "stop"
TOLD_EVERY_S = 0.5


def answer_in_processes(
    answer: Callable[..., Answered],
    processes: int,
    settings: Mapping[str, Any],
    asked: Asked,
    rest: tuple[Any, ...],
    out: Path,
    partial: str,
) -> Answered:
    """Shares questions out by picture and gives all replies; what was answered before a kill counts.

    Args:
        answer: A module's function ``(settings, asked, *rest, folder)`` that asks questions, keeping its
            replies in the file ``partial`` of its folder, and gives them and how they were decoded.
        processes: How many.
        settings: Of the step; a process gets them with ``hardware.processes`` 1 and a device of its own. With
            ``hardware.engine`` ray the processes are tasks of a Ray cluster, whose machines share the folders.
        asked: Benchmark to its questions.
        rest: Further arguments of ``answer``.
        out: The step's folder; each process has a folder in it.
        partial: Name of the file of replies. Those of another number of processes are taken over; at the end
            it holds all of them, in ``out``.

    Returns:
        Replies by key, and how they were decoded, with ``processes``.

    Raises:
        ModelError: A process ended without a word, or what ``answer`` raised in it.
    """
    shares = [share for share in split_questions(asked, processes) if any(share.values())]
    folders = _hand_out(shares, out, partial)
    total = sum(len(questions) for questions in asked.values())
    hardware = dict(settings.get("hardware") or {})
    with _pool(hardware.get("engine", "local"), processes) as (submit, parent):
        tasks = [
            submit(
                _replica,
                answer,
                parent,
                index,
                {**settings, "hardware": {**hardware, "processes": 1}},
                share,
                rest,
                folder,
            )
            for index, (share, folder) in enumerate(zip(shares, folders, strict=True))
        ]
        with bar("questions", total, _lines(folders, partial)) as progress:
            waiting: Any = tasks
            while waiting:
                done, waiting = wait(waiting, TOLD_EVERY_S, "FIRST_EXCEPTION")
                progress.advance(_lines(folders, partial) - progress.done)
                if any(task.exception() for task in done):
                    break
        for folder in folders if waiting else ():
            (folder / STOP).touch()
        try:
            answered = [task.result() for task in tasks if task.done()]
        except BrokenProcessPool:
            raise ModelError(
                f"one of {processes} answering processes ended without a word (out of memory?); what was answered "
                f"is kept: start again with a smaller hardware.processes"
            ) from None
        except Exception as error:
            raise _own(error) from None
    replies = {key: reply for part, _ in answered for key, reply in part.items()}
    # Until answers.jsonl is written these are all that a kill leaves.
    gather_replies(out, partial)
    return replies, _together([decoding for _, decoding in answered], processes)


@contextmanager
def _pool(engine: str, processes: int) -> Iterator[tuple[Callable[..., Any], int | None]]:
    """Gives what starts a function elsewhere, and the process without which those are to end."""
    if engine == "ray":
        ray = find_ray("hardware.engine")
        started = start_ray(ray, processes)
        try:
            gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0

            def submit(function: Callable[..., Answered], *arguments: Any) -> Future[Answered]:
                # A task that is tried again would ask again what its folder says is answered.
                remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(function)
                return remote.remote(*arguments).future()

            yield submit, None
        finally:
            if started:
                ray.shutdown()
    else:
        with (
            ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
            _shared_threads(processes),
        ):
            yield pool.submit, os.getpid()


def _own(error: Exception) -> Exception:
    """Gives medkit's own error out of what Ray wraps it in."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, MedkitError):
        return cause
    if type(error).__module__.startswith("ray."):
        return ModelError(
            f"a task of the Ray cluster ended ({type(error).__name__}); what was answered is kept"
        )
    return error


def gather_replies(out: Path, partial: str) -> None:
    """Puts what several processes answered into the file of one, on the disk before their folders go.

    Args:
        out: The step's folder; without folders of processes in it nothing happens.
        partial: Name of the file of replies, in ``out`` and in each process's folder.
    """
    folders = sorted(out.glob(PATTERN))
    if not folders:
        return
    known = dict(read_replies(out / partial))
    more = {key: reply for folder in folders for key, reply in read_replies(folder / partial)}
    with (out / partial).open("ab") as file:
        append_replies(file, [reply for key, reply in more.items() if known.get(key) != reply])
    for folder in folders:
        shutil.rmtree(folder)


def split_questions(asked: Asked, parts: int) -> list[Asked]:
    """Shares questions out so that those about one picture stay together and the parts are of like size."""
    sizes = Counter(tuple(question.images) for questions in asked.values() for question in questions)
    loads = [0] * parts
    part_of: dict[tuple[str, ...], int] = {}
    for pictures, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        part_of[pictures] = loads.index(min(loads))
        loads[part_of[pictures]] += size
    return [
        {
            name: [question for question in questions if part_of[tuple(question.images)] == part]
            for name, questions in asked.items()
        }
        for part in range(parts)
    ]


def _hand_out(shares: Sequence[Asked], out: Path, partial: str) -> list[Path]:
    """Makes each process's folder, with those of its questions that are answered already."""
    gather_replies(out, partial)
    known = dict(read_replies(out / partial))
    folders = []
    for index, share in enumerate(shares):
        folder = out / f"replica-{index}"
        folder.mkdir(parents=True)
        keys = [question.key for questions in share.values() for question in questions]
        with (folder / partial).open("ab") as file:
            append_replies(file, [known[key] for key in keys if key in known])
        folders.append(folder)
    return folders


def _replica(
    answer: Callable[..., Answered],
    parent: int | None,
    index: int,
    settings: dict[str, Any],
    share: Asked,
    rest: tuple[Any, ...],
    folder: Path,
) -> Answered:
    import torch

    hide_bars()
    threading.Thread(target=_end_with, args=(parent, folder / STOP), daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())
    return answer(settings, share, *rest, folder)


def _end_with(parent: int | None, stop: Path) -> None:
    """Ends this process when the one that started it is gone, for a second run would ask the same, or says so."""
    while parent in (None, os.getppid()) and not stop.exists():
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _shared_threads(processes: int) -> Iterator[None]:
    """Shares the cores out to the processes that start within: torch reads the variable when it is imported."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


def _lines(folders: Sequence[Path], partial: str) -> int:
    return sum(
        (folder / partial).read_bytes().count(b"\n") for folder in folders if (folder / partial).exists()
    )


def _together(decodings: Sequence[dict[str, Any]], processes: int) -> dict[str, Any]:
    whole = {**decodings[0], "processes": processes}
    checks = [one["batch_check"] for one in decodings if "batch_check" in one]
    if checks:
        whole["batch_check"] = {name: sum(check[name] for check in checks) for name in checks[0]}
    return whole
