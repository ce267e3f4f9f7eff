"""Presidio beside the rules: optional, from this machine's disk, and never at the cost of findings."""

from __future__ import annotations

import importlib.util
import logging
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medkit.errors import DataError, MissingExtra
from medkit.privacy import presidio
from medkit.privacy.presidio import Finder, read_finder
from medkit.privacy.text import Known, clean
from medkit.readers import Record, get_reader
from tests.dicom_objects import ct, picture, save

installed = pytest.mark.skipif(
    importlib.util.find_spec("presidio_analyzer") is None, reason='the extra "presidio" is not installed'
)
FINDINGS = (
    "Compression of T12 and L4-5, unchanged for two years. Nodule 5.3 x 4.1 mm in segment 6 (SUV 4.5), BI-RADS 4. "
    "120 kV, 250 mAs, DLP 512 mGy cm. Hounsfield units -950 to 40. Follow-up in 6 months."
)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("en", "is true or a mapping of model, language, least"),
        ({"modle": "x"}, "has no key modle"),
        ({"language": "english"}, "a two-letter code"),
        ({"least": 2}, "is no confidence of 0 to 1"),
        ({"least": True}, "is no confidence of 0 to 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(given: Any, said: str, there: None) -> None:
    with pytest.raises(DataError, match=said):
        read_finder(given, "reader dicom")


def test_off_is_the_default_and_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_finder(None, "reader dicom") is None
    assert read_finder(False, "reader dicom") is None
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'needs the extra "presidio": pip install "medkit-lmm\[presidio\]"'):
        read_finder(True, "reader dicom")


def test_a_model_must_be_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        presidio.importlib.util, "find_spec", lambda name: object() if name == "presidio_analyzer" else None
    )
    for model in ("en_core_web_lg", str(tmp_path / "model")):
        with pytest.raises(DataError, match="neither a folder nor an installed spaCy model"):
            read_finder({"model": model}, "reader dicom")
    (tmp_path / "model").mkdir()
    found = read_finder({"model": str(tmp_path / "model"), "least": 1}, "reader dicom")
    assert found == Finder(str(tmp_path / "model"), "en", 1.0)


def test_what_it_finds_is_replaced_but_never_inside_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Seen by Dr. Pell with Zdenka Vrabec of Marrowfield."
    known = Known((("PLACE", "Marrowfield"),))

    def spans(self: Finder, text: str) -> list[tuple[int, int, str]]:
        assert text == "Seen by Dr. [NAME] with Zdenka Vrabec of [PLACE]."
        places = [
            (text.index("Zdenka"), text.index(" of"), "NAME"),
            (text.index("NAME"), text.index("]"), "PLACE"),
        ]
        return sorted(places)

    monkeypatch.setattr(Finder, "spans", spans)
    cleaned = clean(text, known, Finder())
    assert cleaned.text == "Seen by Dr. [NAME] with [NAME] of [PLACE]."
    assert cleaned.found == {"NAME": 2, "PLACE": 1}


@installed
def test_its_recognisers_find_numbers_that_no_label_names() -> None:
    text = "Card 4111 1111 1111 1111, paid from DE89370400440532013000, insured as 943 476 5919."
    assert (
        clean(text).text == "Card 4111 1111 1111 1111, paid from DE89370400440532013000, insured as [PHONE]."
    )
    cleaned = clean(text, None, Finder())
    assert cleaned.text == "Card [ID], paid from [ID], insured as [PHONE]."
    assert cleaned.found == {"ID": 2, "PHONE": 1}


@installed
def test_findings_stay_as_they_are() -> None:
    cleaned = clean(FINDINGS, None, Finder())
    assert (cleaned.text, dict(cleaned.found)) == (FINDINGS, {})


@installed
def test_a_model_on_disk_finds_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import spacy

    pipeline = spacy.blank("en")
    ruler: Any = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PERSON", "pattern": "Zdenka Vrabec"},
            {"label": "GPE", "pattern": "Lower Marrowfield"},
            {"label": "DATE", "pattern": "two years"},
        ]
    )
    pipeline.to_disk(tmp_path / "model")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    finder = read_finder({"model": str(tmp_path / "model")}, "reader dicom")
    cleaned = clean("Zdenka Vrabec of Lower Marrowfield, stable for two years.", None, finder)
    assert cleaned.text == "[NAME] of [PLACE], stable for two years."
    assert clean("Zdenka Vrabec of Lower Marrowfield.").text == "Zdenka Vrabec of Lower Marrowfield."


def refuse(*_: Any) -> None:
    raise AssertionError("the network was asked")


@installed
def test_another_language_works_and_an_unknown_one_is_said() -> None:
    assert clean("IBAN DE89370400440532013000", None, Finder(language="de")).text == "IBAN [ID]"
    with pytest.raises(DataError, match="spaCy can't load the language qq"):
        Finder(language="qq").spans("text")


@installed
def test_a_folder_that_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="spaCy can't load the model"):
        Finder(model=str(tmp_path)).spans("text")


@installed
def test_a_reader_asks_it_and_the_ledger_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    save(picture(values, AccessionNumber="A1", WindowCenter=32, WindowWidth=64), tmp_path / "a.dcm")
    (tmp_path / "A1.txt").write_text("Insured by 4111 1111 1111 1111. No effusion.", encoding="utf-8")
    options = {"reports": "{accession}.txt", "presidio": True}
    record = next(one for one in get_reader("dicom")(tmp_path, options) if isinstance(one, Record))
    assert record.caption == "Insured by [ID]. No effusion."
    assert ("report cleaned", "1 ID") in record.notes
    said = capfd.readouterr()
    assert "4111" not in caplog.text + said.out + said.err


def test_a_model_that_does_not_load_stops_the_reading(
    tmp_path: Path, there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spans(self: Finder, text: str) -> list[tuple[int, int, str]]:
        raise MissingExtra("presidio: spaCy can't load the language zz (ImportError)")

    monkeypatch.setattr(Finder, "spans", spans)
    save(ct(np.eye(4, dtype=np.uint16)), tmp_path / "a")
    (tmp_path / "a.txt").write_text("No nodule.")
    with pytest.raises(MissingExtra, match="can't load the language zz"):
        list(get_reader("dicom")(tmp_path, {"reports": "{name}.txt", "presidio": {"language": "zz"}}))


@installed
def test_a_language_that_spacy_lacks_is_said() -> None:
    with pytest.raises(MissingExtra, match="can't load the language zz"):
        Finder(language="zz").spans("No nodule.")
