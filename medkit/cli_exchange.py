"""The commands of ``medkit exchange``: questions and answers from and to other evaluation tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

exchange_app = typer.Typer(
    no_args_is_help=True,
    help="Give benchmarks to lmms-eval and VLMEvalKit, and take questions and answers back.",
)

Data = Annotated[Path, typer.Option("--data", help="A dataset folder with the questions.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[BENCHMARK]...", help="held-out else.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the benchmark.")
]


@exchange_app.command("lmms-tasks")
def lmms_tasks(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The folder of tasks, for --include_path.")],
    benchmark: Names = None,
    settings: Settings = None,
) -> None:
    """Write benchmarks as tasks of lmms-eval, scored by medkit's profile lmms_eval.

    \b
    medkit exchange lmms-tasks --data runs/phantom/2-teach --out tasks
    lmms-eval eval --model medkit --model_args pretrained=runs/phantom --tasks medkit_held_out --include_path tasks
    """
    from .evaluation.standalone import find_benchmarks
    from .exchange.tasks import write_tasks

    names = write_tasks(find_benchmarks(benchmark or ["held-out"], settings or []), data, out)
    for name in names:
        typer.echo(f"wrote the task {name}")
    typer.echo(
        f"next: lmms-eval eval --include_path {out} --tasks {','.join(names)} --model medkit "
        "--model_args pretrained=MODEL"
    )


@exchange_app.command("vlmevalkit")
def vlmevalkit(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The folder of tables: $LMUData of VLMEvalKit.")],
    benchmark: Names = None,
    settings: Settings = None,
) -> None:
    """Write benchmarks as VLMEvalKit's tables: a TSV for each of choice, yes/no and other questions.

    medkit exchange vlmevalkit --data runs/phantom/2-teach --out ~/LMUData
    """
    from .evaluation.standalone import find_benchmarks
    from .exchange.vlmevalkit import write_tables

    for line in write_tables(find_benchmarks(benchmark or ["held-out"], settings or []), data, out):
        typer.echo(line)


@exchange_app.command("dataset")
def dataset(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE...", help="Tables of VLMEvalKit: TSV with pictures in base64."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The dataset folder to write.")],
) -> None:
    """Read tables of VLMEvalKit into a dataset folder, whose questions medkit can ask.

    medkit exchange dataset ~/LMUData/GMAI-MMBench_VAL.tsv --out gmai
    """
    from .exchange.vlmevalkit import read_tables

    for line in read_tables(tables, out):
        typer.echo(line)


@exchange_app.command("answers")
def answers(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Samples of lmms-eval, predictions of VLMEvalKit.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The answers.jsonl to write.")],
    questions: Annotated[
        Path | None,
        typer.Option("--questions", help="A dataset folder with the questions, for files that lack them."),
    ] = None,
) -> None:
    """Turn the answers that another tool stored into answers.jsonl, for score, compare and judge.

    \b
    medkit exchange answers results/medkit__model/*_samples_medkit_held_out.jsonl --out answers.jsonl
    medkit exchange answers outputs/llava/llava_held-out_mcq.xlsx --out answers.jsonl
    medkit score answers.jsonl --profile all
    """
    from .exchange.predictions import import_answers

    for line in import_answers(files, out, questions):
        typer.echo(line)
