"""What benchmarks/exchange.py and tests/test_exchange.py run inside lmms-eval's and VLMEvalKit's own environments.

Run by those environments' Python; each command prints JSON on its last line:

    exchange_tools.py lmms-fuzz COUNT           medkit's profile against lmms-eval's functions, made-up replies
    exchange_tools.py vlm-values CASES          scores of VLMEvalKit's functions for each of given replies
    exchange_tools.py lmms-score ANSWERS        numbers of lmms-eval's functions over rows of answers.jsonl
    exchange_tools.py vlm-score FOLDER ANSWERS  predictions written and scored by VLMEvalKit; FOLDER holds its tables

Only ``lmms-fuzz`` needs medkit beside the other tool.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import string
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

WORDS = (
    "yes no Yes. No, YES yeah Yep nope TRUE false none not normal nodule know answer is the The best correct option "
    "choice I choose my so therefore final result = could be A B C D E (A) (B) B. C: D) A, lung left right liver "
    "x ray X-Ray x-ray. (left) （右） 2 two 2.0 1,000 1e3 5% 0.05 3.14 -7 a an the dont don't it's ; / [ ] { } 是 是的 "
    "对 有 存在 正常 否 不 不是 没有 无 异常 不正常 包含 不包含 可以 能 会 不能 不会 不可以 "
    "答案是 选 ＂ ｡ 《 》 ＋ － ． １ ß İ é µ μ"
)
METHODS = {"accuracy": "accuracy", "relaxed": "relaxed_accuracy", "anls": "anls", "vqa_score": "vqa_score"}
POPE = ("accuracy", "precision", "recall", "f1_score", "yes_ratio")
OPTIONS = ({"A": "left", "B": "right"}, {"A": "CT", "B": "MRI", "C": "X-ray", "D": "the liver"})


def lmms_scores() -> dict[str, Callable[[str, list[str], dict[str, str]], float]]:
    """Gives lmms-eval's own functions by the name of the profile's score: (reply, references, choices) -> score.

    Of a choice the first reference is the letter.
    """
    from lmms_eval.api import metrics
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks.chartqa.utils import relaxed_correctness
    from lmms_eval.tasks.mme.utils import parse_pred_ans
    from lmms_eval.tasks.mmmu import utils as mmmu
    from lmms_eval.tasks.pope.utils import pope_process_results
    from lmms_eval.tasks.scienceqa.utils import sqa_process_results
    from lmms_eval.tasks.slake.utils import normalize_answer
    from lmms_eval.tasks.textvqa.utils import textvqa_process_results
    from lmms_eval.tasks.vqav2.utils import vqav2_process_results

    def best(one: Callable[[str, str], Any]) -> Callable[[str, list[str], dict[str, str]], float]:
        return lambda said, golds, _: max(float(one(said, gold)) for gold in golds)

    def exact(said: str, gold: str) -> float:
        return metrics.exact_match_hf_evaluate(predictions=[said], references=[gold])["exact_match"]

    def pope(said: str, golds: list[str], _: dict[str, str]) -> float:
        return pope_process_results({"question_id": 0, "answer": golds[0]}, [said])["pope_accuracy"]["score"]

    def vqav2(said: str, golds: list[str], _: dict[str, str]) -> float:
        doc = {
            "question_id": 0,
            "answers": [{"answer": gold, "answer_id": n} for n, gold in enumerate(golds)],
        }
        return vqav2_process_results(doc, [said])["exact_match"]

    def textvqa(said: str, golds: list[str], _: dict[str, str]) -> float:
        return textvqa_process_results({"question_id": 0, "answers": list(golds)}, [said])["exact_match"]

    def mmmu_choice(said: str, golds: list[str], choices: dict[str, str]) -> float:
        drawn = random.choice
        random.choice = lambda _: (
            "none"
        )  # lmms-eval draws an option where it reads none; medkit counts that as wrong
        try:
            return float(mmmu.parse_multi_choice_response(said, list(choices), choices) == golds[0])
        finally:
            random.choice = drawn

    return {
        "exact_match": best(exact),
        "slake": best(lambda said, gold: normalize_answer(said) == normalize_answer(gold)),
        "pope": pope,
        "mme": lambda said, golds, _: float(parse_pred_ans(said) == golds[0].lower()),
        "vqav2": vqav2,
        "textvqa": textvqa,
        "anls": lambda said, golds, _: metrics.anls(golds, [said])["anls"],
        "relaxed": best(relaxed_correctness),
        "mmmu_open": lambda said, golds, _: float(
            mmmu.eval_open(list(golds), mmmu.parse_open_response(said))
        ),
        "mmmu_choice": mmmu_choice,
        "mcq": lambda said, golds, choices: float(extract_mcq_answer(said, list(choices)) == golds[0]),
        "scienceqa": lambda said, golds, choices: sqa_process_results(
            {"answer": list(choices).index(golds[0]), "choices": list(choices.values())}, [said]
        )["exact_match"],
    }


def made_up(count: int) -> Iterator[dict[str, Any]]:
    """Gives rows of made-up replies and references, the same ones every time; some have a gold answer that is empty."""
    draw = random.Random(0)
    pieces, signs = [*WORDS.split(" "), "\n", "\t"], string.punctuation + "。，！？；：、（）"

    def text(most: int) -> str:
        parts = [draw.choice(pieces if draw.random() < 0.9 else signs) for _ in range(draw.randint(0, most))]
        return draw.choice(["", " ", " "]).join(parts)

    for number in range(count):
        row: dict[str, Any] = {"id": str(number), "answer": text(6).strip()}  # as lmms-eval hands replies on
        row["answer_type"] = kind = draw.choice(["open", "yes_no", "choice"])
        if kind == "choice":
            row["choices"] = list(draw.choice(OPTIONS).values())
            row["references"] = [draw.choice(row["choices"])]
        elif kind == "yes_no":
            row["references"] = [draw.choice(["yes", "no"])]
        else:
            row["references"] = [text(3) or "lung" for _ in range(draw.choice([1, 1, 3, 10]))]
        yield row


def lmms_fuzz(count: int) -> dict[str, Any]:
    """Compares each score of medkit's profile with lmms-eval's function over made-up replies and references."""
    from medkit.evaluation.scoring.answer_files import items_of
    from medkit.evaluation.scoring.profiles import find_profiles

    functions = lmms_scores()
    (profile,) = find_profiles("lmms_eval")
    cases: dict[str, int] = {}
    differ: dict[str, list[Any]] = {}
    for row in made_up(count):
        ((item,),) = items_of([row], "made up").values()
        for score in profile.scores:
            mark = score.mark(item)
            if mark is None:
                continue
            cases[score.name] = cases.get(score.name, 0) + 1
            theirs = float(functions[score.name](item.answer, list(item.references), dict(item.choices)))
            if abs(theirs - mark.value) > 1e-9:
                differ.setdefault(score.name, []).append(
                    [item.answer, list(item.references), mark.value, theirs]
                )
    return {"cases": cases, "differ": differ}


def lmms_score(answers: Path) -> dict[str, float]:
    """Gives the mean of every score by lmms-eval's own functions, over the questions of the kind it is for."""
    from lmms_eval.tasks.pope import utils as pope

    functions = lmms_scores()
    values: dict[str, list[float]] = {}
    pairs = []
    for row in rows_of(answers):
        golds, choices = row["references"], dict(zip(string.ascii_uppercase, row["choices"], strict=False))
        if choices:
            names, golds = ("mmmu_choice", "mcq", "scienceqa"), [
                next((letter for letter, text in choices.items() if text == golds[0]), golds[0])
            ]  # fmt: skip
        elif row["answer_type"] == "yes_no":
            names = ("slake", "pope", "mme")
            doc = {"question_id": 0, "answer": golds[0]}
            pairs.append(pope.pope_process_results(doc, [row["answer"]])["pope_f1_score"])
        else:
            names = ("exact_match", "slake", "anls", "relaxed", "mmmu_open")
        if len(golds) > 1 and not choices:
            names = (*names, "vqav2", "textvqa")
        for name in names:
            values.setdefault(name, []).append(functions[name](row["answer"].strip(), golds, choices))
    means = {name: sum(found) / len(found) for name, found in values.items()}
    whole = {f"pope_{name.removesuffix('_score')}": getattr(pope, f"pope_aggregate_{name}") for name in POPE}
    return means | ({name: float(function(pairs)) for name, function in whole.items()} if pairs else {})


def vlm_score(folder: Path, answers: Path) -> dict[str, Any]:
    """Writes each table's predictions in VLMEvalKit's three forms and scores them by its own classes and functions."""
    os.environ["LMUData"] = str(folder)  # noqa: SIM112 VLMEvalKit's own spelling
    mcq, yorn, vqa, smp, measures = vlmevalkit()
    said = {row["id"]: row["answer"] for row in rows_of(answers)}
    found: dict[str, Any] = {"scores": {}, "pictures": {}, "files": []}
    for path in sorted(folder.glob("*.tsv")):
        name = path.stem
        kind = name.rpartition("_")[2]
        owner = {"mcq": mcq.CustomMCQDataset, "yorn": yorn.ImageYORNDataset, "vqa": vqa.CustomVQADataset}[
            kind
        ]
        owner.DATASET_URL = {**owner.DATASET_URL, name: f"file:{path}"}
        dataset = owner(name)
        ids = [json.loads(cell)["id"] for cell in dataset.data["medkit"]]
        for place in range(min(3, len(dataset.data))):
            turn = dataset.build_prompt(dataset.data.iloc[place])
            found["pictures"][ids[place]] = [part["value"] for part in turn if part["type"] == "image"]
        table = dataset.data.drop(columns="image")
        table["prediction"] = [said[one] for one in ids]
        for form in ("tsv", "xlsx", "json"):
            file = folder / "predictions" / f"model_{name}.{form}"
            file.parent.mkdir(exist_ok=True)
            smp.dump(table, str(file))
            found["files"].append(str(file))
        file = str(folder / "predictions" / f"model_{name}.xlsx")
        if kind == "mcq":
            found["scores"]["exact_matching"] = float(
                dataset.evaluate(file, model="exact_matching", nproc=1)["Overall"][0]
            )
        elif kind == "yorn":
            result = dataset.evaluate(file, model="exact_matching")
            found["scores"]["yes_no"] = float(result["Overall"][0]) / 100
        else:
            lines = [smp.load(file).iloc[place] for place in range(len(table))]
            for line in lines:
                line["prediction"], line["answer"] = str(line["prediction"]), str(line["answer"])
            for score, method in (
                ("accuracy", "accuracy"),
                ("relaxed", "relaxed_accuracy"),
                ("anls", "anls"),
            ):
                marks = [measures.process_line(line, method=method)["match"] for line in lines]
                hits = [max(mark) if method != "anls" else 1 - min(mark) for mark in marks]
                found["scores"][score] = sum(
                    hit if hit >= 0.5 or method != "anls" else 0.0 for hit in hits
                ) / len(hits)
    return found


def vlm_values(cases: Path) -> list[dict[str, float]]:
    """Gives the scores of VLMEvalKit's functions for rows of replies, references and choices; no judge."""
    *_, measures = vlmevalkit()
    yorn = importlib.import_module("vlmeval.dataset.utils.yorn")
    matching = importlib.import_module("vlmeval.utils.matching_util")
    values = []
    for row in rows_of(cases):
        said, golds = row["answer"], row["references"]
        if row.get("choices"):
            choices = dict(zip(string.ascii_uppercase, row["choices"], strict=False))
            letter = matching.can_infer(said, dict(choices))
            values.append({"exact_matching": float(bool(letter) and choices.get(letter) == golds[0])})
        elif row["answer_type"] == "yes_no":
            values.append({"yes_no": float(yorn.YOrN_Extraction(said).lower() == golds[0])})
        else:
            line = {"answer": repr(golds), "prediction": said}
            marks = {
                name: measures.process_line(dict(line), method=name)["match"] for name in METHODS.values()
            }
            anls = 1 - min(marks["anls"])
            found = {"accuracy": max(marks["accuracy"]), "relaxed": max(marks["relaxed_accuracy"])}
            found |= {"anls": anls if anls >= 0.5 else 0.0}
            if len(golds) > 1:
                found["vqa_score"] = sum(marks["vqa_score"]) / len(golds)
            values.append({name: float(value) for name, value in found.items()})
    return values


def vlmevalkit() -> tuple[Any, Any, Any, Any, Any]:
    """Imports VLMEvalKit's classes for questions, its files and its measures, without the models of its package.

    Its ``__init__`` files import every model and benchmark with all their packages; here they are empty, and no judge
    is there. The modules themselves are VLMEvalKit's.
    """
    root = next(Path(place) / "vlmeval" for place in sys.path if (Path(place) / "vlmeval" / "smp").is_dir())
    for name, inner in (
        ("vlmeval", ""),
        ("vlmeval.dataset", "dataset"),
        ("vlmeval.dataset.utils", "dataset/utils"),
    ):
        package = types.ModuleType(name)
        package.__path__ = [str(root / inner)]
        sys.modules[name] = package
    package.build_judge, package.DEBUG_MESSAGE = None, ""  # type: ignore[attr-defined]
    names = ("dataset.image_mcq", "dataset.image_yorn", "dataset.image_vqa", "smp", "dataset.utils.vqa_eval")
    mcq, yorn, vqa, smp, measures = (importlib.import_module(f"vlmeval.{name}") for name in names)
    return mcq, yorn, vqa, smp, measures


def rows_of(answers: Path) -> Iterable[dict[str, Any]]:
    """Gives the rows of an answers.jsonl, controls left out."""
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n") if line]
    return [row for row in rows if row.get("control", "none") == "none"]


if __name__ == "__main__":
    command, *given = sys.argv[1:]
    if command == "lmms-fuzz":
        result = lmms_fuzz(int(given[0]))
    elif command == "lmms-score":
        result = lmms_score(Path(given[0]))
    elif command == "vlm-values":
        result = vlm_values(Path(given[0]))
    else:
        result = vlm_score(Path(given[0]), Path(given[1]))
    print("\n" + json.dumps(result, ensure_ascii=False))
