"""The commands about answers: ask, judge, score, compare, audit. What they need is imported inside, as in ``cli``."""

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
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the benchmark, or hardware."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what ended without a reply.")
    ] = False,
) -> None:
    """Score a checkpoint or an endpoint on the questions of a dataset folder, outside of a run.

    A stopped evaluation goes on with the same command. A key is read from $MEDKIT_ENDPOINT_KEY only.
    --set corruptions=noise,blur asks again with every picture made worse, at each of the card's severities;
    --set hardware.processes=2 shares the questions out to two processes, one a GPU.

    \b
    medkit evaluate runs/phantom/model --data runs/phantom/2-teach --out scores/phantom
    medkit evaluate runs/phantom/model --data runs/phantom/2-teach --out scores/worse --set corruptions=noise,blur
    medkit evaluate --endpoint http://127.0.0.1:8000/v1 --model llava --data runs/phantom/2-teach --out scores/llava
    """
    from .evaluation.endpoint_card import read_endpoint
    from .evaluation.standalone import evaluate_alone, find_benchmarks, read_hardware, summary_lines

    if (model is None) == (endpoint is None):
        raise MedkitError("name one model: a folder, or --endpoint URL --model NAME")
    asked = model if endpoint is None else read_endpoint(endpoint, name)
    assert asked is not None
    hardware, changes = read_hardware(settings or [])
    cards = find_benchmarks(benchmark or ["held-out"], changes)
    scores = evaluate_alone(asked, cards, data, out, retry_failed=retry_failed, hardware=hardware)
    for line in summary_lines(scores):
        typer.echo(line)
    typer.echo(f"Answers: {out / 'answers.jsonl'}")
    if any(entry["accuracy"] is None for entry in scores["benchmarks"].values()):
        raise MedkitError("no reply came for a whole benchmark: there is no number")


def judge(
    answers: Annotated[Path, typer.Argument(help="answers.jsonl of an evaluation, or its folder.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of this judging.")],
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Base URL of an OpenAI-compatible API, or a card.")
    ] = None,
    name: Annotated[str | None, typer.Option("--model", help="The judge as the endpoint lists it.")] = None,
    local: Annotated[
        Path | None,
        typer.Option(
            "--judge-model",
            "--replies",
            help="In place of an endpoint: a checkpoint's folder, or a file of a judge's replies.",
        ),
    ] = None,
    rubric: Annotated[
        str, typer.Option("--rubric", help="marks, report_errors, green, or a card.")
    ] = "marks",
    human: Annotated[
        Path | None, typer.Option("--human", help="Human marks: JSON Lines or CSV with id and mark.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask an endpoint again what ended without marks.")
    ] = False,
) -> None:
    """Let a model judge stored answers against the references, in both orders.

    Rubric marks: 1 to 10 for each answer; report_errors: a report's errors by type; green: also what is right.

    \b
    medkit judge scores/phantom --endpoint http://127.0.0.1:8000/v1 --model qwen --out judged/phantom
    medkit judge reports.jsonl --rubric report_errors --judge-model ~/models/judge --out judged/reports
    medkit judge reports.jsonl --rubric green --replies green.jsonl --out judged/green
    """
    from .evaluation.endpoint_card import read_endpoint
    from .evaluation.judge import judge_answers, summary_lines
    from .evaluation.judge_sources import StoredReplies

    if (endpoint is None) == (local is None):
        raise MedkitError(
            "name one judge: --endpoint URL --model NAME, --judge-model FOLDER, or --replies FILE"
        )
    if retry_failed and endpoint is None:
        raise MedkitError("--retry-failed is for endpoints: this judge would say the same again")
    if endpoint is not None:
        asked = read_endpoint(endpoint, name)
    else:
        assert local is not None
        asked = StoredReplies(local) if local.is_file() else local
    found = judge_answers(answers, asked, out, rubric=rubric, human=human, retry_failed=retry_failed)
    for line in summary_lines(found):
        typer.echo(line)
    typer.echo(f"Marks: {out / 'judgements.jsonl'}")
    if not found["overall"]["count"]:
        raise MedkitError("no answer was judged in every order: there is no number")


def score(
    answers: Annotated[
        Path, typer.Argument(help="Stored answers (JSONL, JSON, CSV), or an evaluation's folder.")
    ],
    profile: Annotated[
        str, typer.Option("--profile", help="Whose definitions; all for every one.")
    ] = "medkit",
    references: Annotated[
        Path | None, typer.Option("--references", help="Gold answers, where a tool keeps them apart.")
    ] = None,
    reports: Annotated[bool, typer.Option("--reports", help="Every answer is a report.")] = False,
    annotations: Annotated[
        list[Path] | None,
        typer.Option("--annotations", help="CheXbert labels or RadGraph annotations of the replies, by id."),
    ] = None,
    reference_annotations: Annotated[
        list[Path] | None,
        typer.Option("--reference-annotations", help="The same of the references, where kept apart."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--json", help="Also write everything, definitions too.")
    ] = None,
) -> None:
    """Score stored answers again, under any tool's definitions.

    \b
    medkit score runs/phantom/5-evaluate --profile all
    medkit score answers.jsonl --references test.json --profile llava_med_v1_batch
    medkit score reports.jsonl --reports --annotations said.csv --reference-annotations gold.csv
    """
    import json

    from rich.console import Console

    from .evaluation.scoring.rescore import score_file
    from .store import write_atomically
    from .tables import score_table

    found = score_file(
        answers,
        profile,
        references,
        reports=reports,
        annotations=annotations or [],
        reference_annotations=reference_annotations or [],
    )
    Console().print(score_table(found))
    if out is not None:
        write_atomically(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        typer.echo(f"wrote {out}")


def compare_models(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, evaluation folders, answer files.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("compare.html"),
    against: Annotated[
        str, typer.Option(help="Compare with: best, first, or a model's name on the page.")
    ] = "best",
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write everything.")] = None,
    as_csv: Annotated[Path | None, typer.Option("--csv", help="Also write the tables.")] = None,
    as_latex: Annotated[Path | None, typer.Option("--latex", help="Also write a LaTeX table.")] = None,
) -> None:
    """Compare models on the same questions: who is better, by how much, how sure, what to distrust.

    \b
    medkit compare runs/phantom runs/phantom-2 --out compare.html
    medkit compare runs/phantom/8-evaluate-base other-tool.jsonl --csv compare.csv
    """
    import json

    from .evaluation.leaderboard import leaderboard
    from .evaluation.sources import read_sources
    from .report.leaderboard import summary_lines, write_leaderboard
    from .report.leaderboard_tables import leaderboard_csv, leaderboard_latex
    from .store import write_atomically

    found = leaderboard(read_sources(paths), against)
    for line in summary_lines(found):
        typer.echo(line)
    for path, text in (
        (as_json, json.dumps(found, indent=1, ensure_ascii=False) + "\n"),
        (as_csv, leaderboard_csv(found)),
        (as_latex, leaderboard_latex(found)),
    ):
        if path is not None:
            write_atomically(path, text)
            typer.echo(f"wrote {path}")
    typer.echo(f"Comparison: {write_leaderboard(found, out)}")


def leaks(
    train: Annotated[str, typer.Argument(help="Dataset folder of what a model was trained on.")],
    test: Annotated[str, typer.Argument(help="Dataset folder of what it is asked.")],
    out: Annotated[Path | None, typer.Option("--json", help="Also write everything as JSON.")] = None,
) -> None:
    """Count the images and questions of a test set that a training set has too.

    \b
    medkit data benchmark vqa-rad --data ~/vqa_rad --part train --out rad-train
    medkit data benchmark vqa-rad --data ~/vqa_rad --out rad-test
    medkit leaks rad-train rad-test
    """
    from .evaluation.leak_audit import write_audit

    typer.echo(write_audit(train, test, out))


def ensemble(
    first: Annotated[
        Path, typer.Argument(help="Answers whose unreadable ones are replaced, or their folder.")
    ],
    second: Annotated[Path, typer.Argument(help="Answers that replace them, or their folder.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the joined answers.")],
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="A judge of what differs: base URL, or a card.")
    ] = None,
    name: Annotated[str | None, typer.Option("--model", help="The judge as the endpoint lists it.")] = None,
    reading: Annotated[
        str, typer.Option("--reading", help="How letters are read: scienceqa (the paper's) or medkit.")
    ] = "scienceqa",
) -> None:
    """Join two files of answers to questions with choices: the complement, or with --endpoint a judge's verdict.

    Alone it takes the first file's answers, and the second's where the first's can't be read. With a judge, it
    asks where the two differ. Score the result with medkit score.

    \b
    medkit ensemble scores/gpt-4 scores/llava --out joined
    medkit ensemble scores/gpt-4 scores/llava --out judged --endpoint http://127.0.0.1:8000/v1 --model qwen
    """
    from .evaluation.endpoint_card import read_endpoint
    from .evaluation.ensemble import write_ensemble

    judge = None if endpoint is None else read_endpoint(endpoint, name)
    found = write_ensemble(first, second, out, endpoint=judge, reading=reading)
    told = ", ".join(f"{source} {count}" for source, count in found["from"].items())
    typer.echo(f"{found['kind']} of {found['questions']} answers, taken from: {told}")
    unread = found["unread"]
    typer.echo(
        f"No letter could be read in {unread['first']} of the first and {unread['second']} of the second"
    )
    if found["judge"] and found["judge"]["failed"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in found["judge"]["failed"].items())
        typer.echo(f"The judge failed, and the second's answer stands: {reasons}")
    typer.echo(f"Answers: {out / 'answers.jsonl'}")
