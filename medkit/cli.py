"""The command line. What a command needs is imported inside of it: ``medkit --help`` stays under 0.3 s."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .cli_data import data_app
from .cli_evaluation import compare_models, ensemble, evaluate, judge, leaks, score
from .cli_exchange import exchange_app
from .errors import MedkitError

app = typer.Typer(
    name="medkit",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Adapt a general vision-language model to a specialty, and prove that it helped.\n\n"
        "\b\n"
        "medkit run                      the shipped example: drawn images to report\n"
        "medkit list                     recipes, domains, curricula, benchmarks\n"
        "medkit check blood --set data=~/BCCD\n"
        "                                what would run, and what is wrong, in a second\n"
        "medkit run blood --set data=~/BCCD\n"
        "                                the same, done; again, and nothing is redone\n"
        "medkit new domain welds         a domain of your own, ready to fill in"
    ),
)
new_app = typer.Typer(no_args_is_help=True, help="Write a recipe, domain or benchmark that passes check.")
app.add_typer(new_app, name="new")
app.add_typer(data_app, name="data")
app.add_typer(exchange_app, name="exchange")


DEFAULT_RECIPE = "phantom"

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe: --set instruct.epochs=2"),
]
RecipeName = Annotated[str, typer.Argument(help="A recipe's name or file.", metavar="[RECIPE]")]
RunName = Annotated[
    str | None, typer.Option("--name", help="Name of the run folder; the recipe's name else.")
]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Where run folders lie.")]


@app.command()
def run(
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    name: RunName = None,
    runs: RunsFolder = Path("runs"),
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="Who reads pictures: local, or ray for a cluster (ingest.engine)."),
    ] = None,
) -> None:
    """Run a recipe: data, training, evaluation, report.

    What is done stays done: a second run redoes nothing, a stopped run goes on, a changed setting redoes only
    what depends on it.

    \b
    medkit run
    medkit run retail --set data=~/fashion_mnist --set instruct.epochs=3 --name retail-3
    """
    from .check import load
    from .provenance import command_line
    from .run import run_recipe

    cards = load(recipe, [*(settings or []), *([f"ingest.engine={engine}"] if engine else [])])
    run_recipe(cards, _run_folder(cards.recipe.name, name, runs), command=command_line())


@app.command()
def check(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe; without one, every card is checked.")
    ] = None,
    settings: Settings = None,
    name: RunName = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Say every fault of the cards, or what a run would do and why.

    \b
    medkit check
    medkit check blood --set data=~/BCCD
    """
    from rich.console import Console

    from .check import check_recipe, check_shelf
    from .errors import CardError
    from .plan import plan
    from .state import states
    from .tables import plan_table

    console = Console()
    if recipe is None:
        if settings:
            raise MedkitError(
                "--set changes a recipe: name one, for example medkit check phantom --set seed=1"
            )
        fine, problems = check_shelf()
        if problems:
            raise CardError(problems)
        for kind, names in fine.items():
            console.print(f"[green]ok[/green] {kind}: {', '.join(names)}", highlight=False)
        return
    cards = check_recipe(recipe, settings or [])
    folder = _run_folder(cards.recipe.name, name, runs)
    found = states(plan(cards), folder)
    console.print(plan_table(found, title=f"{cards.recipe.title} ({folder})"))
    if cards.base.kind == "hub":
        console.print(
            f"The base {cards.base.name} comes from the Hugging Face hub: the run needs the network."
        )
    waiting = sum(state.state != "done" for state in found)
    done = "Nothing to do: every step is done with these settings."
    console.print(f"{waiting} of {len(found)} steps would run." if waiting else done, highlight=False)


@app.command("list")
def list_shelf(
    kind: Annotated[
        str, typer.Argument(help="recipes, domains, curricula, benchmarks or checkpoints; all else.")
    ] = "",
) -> None:
    """List the recipes, domains, curricula, benchmarks and checkpoints that are found, and where.

    \b
    medkit list
    medkit list benchmarks      # with questions, licence, published score and source of each
    """
    from rich.console import Console

    from .cards.shelf import open_shelf
    from .listing import benchmark_table, shelf_table

    shelf = open_shelf()
    Console().print(benchmark_table(shelf) if kind == "benchmarks" else shelf_table(shelf, kind))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder (runs/phantom), or an evaluation's folder.")],
) -> None:
    """Write the report of a run again, or that of a single evaluation; reads the folder only.

    \b
    medkit report runs/phantom
    medkit report scores/phantom
    """
    from .report.build import write_report

    typer.echo(f"Report: {write_report(folder)}")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A dataset folder or a run folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A .png or .html file, or a folder for both.")
    ] = None,
) -> None:
    """Look into a dataset or a run: counts and a contact sheet of samples.

    medkit show runs/phantom/2-teach
    """
    from .readers.show import show as show_path

    typer.echo(str(show_path(path, out)))


@app.command("import")
def import_checkpoint(
    folder: Annotated[Path, typer.Argument(help="A checkpoint in the original LLaVA layout.")],
    out: Annotated[Path, typer.Option("--out", help="The Hugging Face model folder to write.")],
    base: Annotated[
        str | None, typer.Option(help="Language model of a projector, LoRA or delta: a folder or hub id.")
    ] = None,
    tower: Annotated[str | None, typer.Option(help="Vision tower to take: a folder or hub id.")] = None,
    conversation: Annotated[
        str | None, typer.Option(help="Conversation template: v1, mistral_instruct, v0_med, ...")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="pad, crop or anyres, against what config.json says.")
    ] = None,
) -> None:
    """Turn an original LLaVA or LLaVA-Med checkpoint into a Hugging Face folder, exactly.

    \b
    medkit import llava-v1.5-7b --out models/llava --tower openai/clip-vit-large-patch14-336
    medkit import llava-lora --base vicuna-7b-v1.5 --out models/llava-lora
    """
    from rich.console import Console

    from .models.original.convert import import_original
    from .tables import import_table

    summary = import_original(folder, out, base=base, tower=tower, conversation=conversation, fit=fit)
    console = Console()
    console.print(import_table(summary))
    console.print(f"Model: {out} (a recipe's base: {out})", highlight=False)


@app.command("export")
def export_model(
    source: Annotated[Path, typer.Argument(help="A run folder, a model folder or an adapter folder.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    to: Annotated[str, typer.Option("--to", help="hf, or llava for the original layout.")] = "hf",
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16, float16 or float32.")] = "bfloat16",
) -> None:
    """Write a checkpoint as transformers, vLLM and SGLang load it, and check that it answers the same.

    \b
    medkit export runs/phantom --out phantom-bundle
    medkit export runs/phantom --out phantom-fp16 --dtype float16
    """
    from .models.export import export, summary_lines

    for line in summary_lines(export(source, out, layout=to, dtype=dtype)):
        typer.echo(line)


# after run, report and export in the list of commands
app.command()(evaluate)
app.command()(judge)
app.command()(score)
app.command("compare")(compare_models)
app.command()(leaks)
app.command()(ensemble)


@new_app.command("recipe")
def new_recipe(
    name: str,
    domain: Annotated[str, typer.Option(help="The domain that the recipe adapts to.")] = "phantom",
) -> None:
    """Write recipes/NAME.yaml.

    medkit new recipe welds --domain welds
    """
    from .scaffold import write_recipe

    _written(write_recipe(name, domain, Path.cwd()), f"medkit check {name}")


@new_app.command("domain")
def new_domain(name: str) -> None:
    """Write domains/NAME/: card, teacher and an invented fixture."""
    from .scaffold import write_domain

    _written(write_domain(name, Path.cwd()), "medkit check")


@new_app.command("benchmark")
def new_benchmark(
    name: str,
    domain: Annotated[
        str, typer.Option(help="Whose test questions are asked; same is the recipe's own.")
    ] = "same",
    csv: Annotated[
        Path | None, typer.Option("--csv", help="A table of image, question, answer [, options, kind].")
    ] = None,
) -> None:
    """Write evals/NAME/eval.yaml.

    \b
    medkit new benchmark welds --domain welds
    medkit new benchmark ward-round --csv ~/ward/questions.csv
    """
    from .scaffold import write_benchmark

    table = None
    if csv is not None:
        from .readers.questions import count_questions

        table = csv.expanduser(), count_questions(csv)
    _written(write_benchmark(name, domain, Path.cwd(), table), "medkit check")


def main() -> None:
    """Runs the command line; errors for users are one line a fault, without a traceback."""
    try:
        app()
    except MedkitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)


def _run_folder(recipe: str, name: str | None, runs: Path) -> Path:
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise MedkitError(f"--name {name}: must be a plain folder name; use --runs for where it lies")
    return runs / (name or recipe)


def _written(paths: list[Path], then: str) -> None:
    for path in paths:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: {then}")
