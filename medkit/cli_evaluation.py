"""The commands that ask a model: evaluate and judge. What they need is imported inside, as in ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import MedkitError


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="A dataset folder with the questions.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of this evaluation.")],
    model: Annotated[Path | None, typer.Argument(help="A model folder; none with --endpoint.")] = None,
    benchmark: Annotated[list[str] | None, typer.Option("--benchmark", help="held-out else.")] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Base URL of an OpenAI-compatible API, or a card.")
    ] = None,
    name: Annotated[str | None, typer.Option("--model", help="The model as the endpoint lists it.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the benchmark.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what ended without a reply.")
    ] = False,
) -> None:
    """Score a checkpoint or an endpoint on the questions of a dataset folder, outside of a run.

    A stopped evaluation goes on with the same command. A key is read from $MEDKIT_ENDPOINT_KEY only.

    \b
    medkit evaluate runs/phantom/model --data runs/phantom/2-teach --out scores/phantom
    medkit evaluate --endpoint http://127.0.0.1:8000/v1 --model llava --data runs/phantom/2-teach --out scores/llava
    """
    from .evaluation.endpoint_card import read_endpoint
    from .evaluation.standalone import evaluate_alone, find_benchmarks, summary_lines

    if (model is None) == (endpoint is None):
        raise MedkitError("name one model: a folder, or --endpoint URL --model NAME")
    asked = model if endpoint is None else read_endpoint(endpoint, name)
    assert asked is not None
    cards = find_benchmarks(benchmark or ["held-out"], settings or [])
    scores = evaluate_alone(asked, cards, data, out, retry_failed=retry_failed)
    for line in summary_lines(scores):
        typer.echo(line)
    typer.echo(f"Answers: {out / 'answers.jsonl'}")
    if any(entry["accuracy"] is None for entry in scores["benchmarks"].values()):
        raise MedkitError("no reply came for a whole benchmark: there is no number")


def judge(
    answers: Annotated[Path, typer.Argument(help="answers.jsonl of an evaluation, or its folder.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of this judging.")],
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="Base URL of an OpenAI-compatible API, or a card.")
    ],
    name: Annotated[str | None, typer.Option("--model", help="The judge as the endpoint lists it.")] = None,
    rubric: Annotated[
        Path | None, typer.Option("--rubric", help="A rubric card; the shipped one else.")
    ] = None,
    human: Annotated[
        Path | None, typer.Option("--human", help="Human marks, 1 to 10: JSON Lines or CSV with id and mark.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what ended without marks.")
    ] = False,
) -> None:
    """Let a model mark stored answers against the references, in both orders.

    medkit judge scores/phantom --endpoint http://127.0.0.1:8000/v1 --model qwen --out judged/phantom
    """
    from .evaluation.endpoint_card import read_endpoint
    from .evaluation.judge import judge_answers, summary_lines

    found = judge_answers(
        answers, read_endpoint(endpoint, name), out, rubric=rubric, human=human, retry_failed=retry_failed
    )
    for line in summary_lines(found):
        typer.echo(line)
    typer.echo(f"Marks: {out / 'judgements.jsonl'}")
    if not found["overall"]["count"]:
        raise MedkitError("no answer has marks in both orders: there is no number")
