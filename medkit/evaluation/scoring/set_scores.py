"""Scores that belong to one benchmark: they know its categories, or join the two forms of its questions."""

from __future__ import annotations

from collections.abc import Callable

from . import documents, mmmu_choice, mmmu_open, report_text, scienceqa
from .profile import Given, Item, Mark, Score, is_choice, is_report, is_short, when

OCRBENCH_TYPES = frozenset(
    name.lower()
    for name in (
        "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition",
        "Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition",
        "Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction", documents.FORMULA_CATEGORY,
    )
)  # fmt: skip
IU_XRAY = "iu_xray"  # the kind of IU X-ray's questions: R2Gen cleans them otherwise than MIMIC-CXR's


def is_iu_xray(item: Item) -> bool:
    return is_report(item) and item.category.lower() == IU_XRAY


def is_other_report(item: Item) -> bool:
    return is_report(item) and not is_iu_xray(item)


def clean_iu_xray(report: str) -> str:
    return report_text.r2gen_clean(report, mimic=False)


def ocrbench(fold_width: bool = False) -> Score:
    """Gives OCRBench's score; formulas are told by the category, as in VLMEvalKit (in the set, HME100k's rows)."""

    def value(item: Item) -> Given:
        formula = item.category.lower() == documents.FORMULA_CATEGORY.lower()
        return float(documents.ocr_contains(item.answer, item.references, formula, fold_width))

    return Score(
        "ocrbench",
        "OCRBench: a reference stands in the reply, without case; formulas with case and without spaces.",
        when(lambda item: item.category.lower() in OCRBENCH_TYPES and not item.choices, value),
    )


def _mmmu(item: Item) -> Given:
    if is_choice(item):
        letter = mmmu_choice.official(item.answer, item.choices)
        return Mark(0.0, "random") if letter == mmmu_choice.RANDOM else float(letter == item.gold)
    return float(mmmu_open.is_right(mmmu_open.parse(item.answer), list(item.references)))


def _scienceqa(item: Item) -> Given:
    letter = scienceqa.llava(item.answer)
    return Mark(0.0, "unparsed") if letter == scienceqa.FAILED else float(letter == item.gold)


def _either(item: Item) -> bool:
    return is_choice(item) or is_short(item)


def _score(
    name: str, definition: str, applies: Callable[[Item], bool], value: Callable[[Item], Given]
) -> Score:
    return Score(name, definition, when(applies, value))


MMMU = _score(
    "mmmu", "MMMU's accuracy: mmmu_choice and mmmu_open together, each question once.", _either, _mmmu
)
SCIENCEQA_IMG = _score(
    "scienceqa_img", "ScienceQA's IMG-Accuracy: scienceqa of the questions with a picture.",
    lambda item: is_choice(item) and bool(item.image), _scienceqa,
)  # fmt: skip
