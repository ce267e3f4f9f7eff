"""The commands of ``medkit data``: benchmarks, dataset cards, and what of a folder would identify someone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(
    no_args_is_help=True,
    help="Look at data before it is used: counts, licences, what would identify someone.",
)


@data_app.command("benchmark")
def data_benchmark(
    name: Annotated[str, typer.Argument(help="A benchmark with data of its own.")],
    out: Annotated[Path, typer.Option("--out", help="The dataset folder to write.")],
    data: Annotated[Path | None, typer.Option("--data", help="Its folder; else what its card says.")] = None,
    part: Annotated[
        str | None, typer.Option("--part", help="train, valid or test; else the one that is asked.")
    ] = None,
) -> None:
    """Read a benchmark into a dataset folder, and say what differs from its card.

    medkit data benchmark vqa-rad --data ~/vqa_rad --out rad-test
    """
    from .readers.benchmarks import write_benchmark

    typer.echo(write_benchmark(name, out, str(data) if data else None, part))


@data_app.command("card")
def data_card(
    folder: Annotated[Path, typer.Argument(help="A dataset folder: a run's 1-ingest or 2-teach.")],
) -> None:
    """Write a dataset folder's README.md: counts, licences, sources, what became of the inputs.

    medkit data card runs/phantom/1-ingest
    """
    from .readers.dataset_card import write_card

    typer.echo(f"Card: {write_card(folder)}")


@data_app.command("audit")
def data_audit(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files, pictures and reports.")],
    profile: Annotated[
        str, typer.Option(help="basic, or research: shifted dates, sex and age may stay.")
    ] = "basic",
    out: Annotated[Path | None, typer.Option("--out", help="Also write the counts as JSON.")] = None,
) -> None:
    """Say what of a folder would identify someone: counts by attribute and reason, never a value.

    medkit data audit ~/export
    """
    from .privacy.report import write_audit

    typer.echo(write_audit(folder, profile, out))


@data_app.command("review")
def data_review(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files and pictures.")],
    out: Annotated[Path, typer.Option("--out", help="The page (.html), outside of the folder.")],
    ocr: Annotated[
        bool, typer.Option("--ocr", help="Also search every other picture for text (extra ocr).")
    ] = False,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="A YAML file of site masks, as in a domain card.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="How many pictures the page shows.")] = 300,
) -> None:
    """Write a page of the pictures that may show a name, for a person to look at and to release.

    Needs the same MEDKIT_PATIENT_KEY as the ingest, so that the pseudonyms are the ledger's.

    \b
    medkit data review ~/export --out review.html
    medkit data review ~/export --out review.html --ocr --masks site-masks.yaml
    """
    from .readers.review import write_review

    typer.echo(write_review(folder, out, ocr, masks, most))


@data_app.command("deidentify")
def data_deidentify(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the files without identity.")],
    key: Annotated[
        Path, typer.Option("--key", help="File with the site's secret: openssl rand -hex 32 > key")
    ],
    profile: Annotated[
        str, typer.Option(help="basic, or research: shifted dates, sex and age stay.")
    ] = "basic",
    mapping: Annotated[
        Path | None,
        typer.Option("--mapping", help="A folder for the key holder: old and new UIDs, patients."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="A YAML file of regions to blacken, by device.")
    ] = None,
) -> None:
    """Write DICOM files without what identifies a person, under new names.

    medkit data deidentify ~/export --out ~/clean --key ~/site.key
    """
    from .privacy.report import write_deidentified

    typer.echo(write_deidentified(folder, out, key, profile, mapping, masks))
