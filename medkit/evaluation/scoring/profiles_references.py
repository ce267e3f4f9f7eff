"""The profiles of other tools: what their published numbers mean, faults included."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import (
    captions,
    documents,
    exact,
    llava_med,
    medevalkit,
    medical_options,
    mmmu_choice,
    mmmu_open,
    options,
    report_text,
    rouge,
    scienceqa,
    set_scores,
    slake,
    soft,
    yes_no,
)
from .bleu import CUMULATIVE, sentence_bleu
from .profile import (
    CorpusScores,
    Given,
    Item,
    Mark,
    Profile,
    Score,
    has_annotators,
    is_choice,
    is_closed,
    is_open,
    is_report,
    is_short,
    is_yes_no,
    when,
)
from .report_numbers import caption_numbers


def best(compare: Callable[[str, str], float | bool]) -> Callable[[Item], Given]:
    """Gives the best value over the references."""
    return lambda item: max(float(compare(item.answer, gold)) for gold in item.references)


def _llava_med_open(name: str) -> Callable[[Item], Given]:
    def value(item: Item) -> Given:
        said, gold = llava_med.normalise(item.answer), llava_med.normalise(item.gold)
        return llava_med.open_scores(said, gold)[name]

    return when(is_open, value)


def _llava_med_batch(name: str, closed: bool) -> Callable[[Item], Given]:
    applies = is_closed if closed else is_open
    return when(applies, lambda item: llava_med.run_eval_batch(item.answer, item.gold, closed)[name])


_LLAVA_MED_OPEN = (
    Score(
        "open_recall",
        "Share of the reference's words in the reply, repeats in the reply counted again: the papers' open "
        "score. It is a recall, not an accuracy; long replies gain.",
        _llava_med_open("recall"),
    ),
    Score(
        "open_precision", "Share of the reply's words that the reference has.", _llava_med_open("precision")
    ),
    Score("open_f1", "Harmonic mean of the two.", _llava_med_open("f1")),
    Score(
        "open_exact_match",
        "Distinct reference words found, over the reply's words: a precision, whatever its name.",
        _llava_med_open("exact_match"),
    ),
    Score(
        "open_bleu", "NLTK's BLEU-4 without smoothing; about 0 for short answers.", _llava_med_open("bleu")
    ),
)

LLAVA_MED_V1 = Profile(
    "llava_med_v1",
    1,
    "LLaVA-Med v1.0, run_eval",
    (
        *_LLAVA_MED_OPEN,
        Score(
            "closed_accuracy",
            'The reply holds "yes" or "no" and the reference, all as substrings ("normal" holds "no"); a closed '
            "reference that is neither yes nor no is right only by accident.",
            when(is_closed, lambda item: llava_med.run_eval(item.answer, item.gold, True)["closed_accuracy"]),
        ),
    ),
)

LLAVA_MED_V1_BATCH = Profile(
    "llava_med_v1_batch",
    1,
    "LLaVA-Med v1.0, run_eval_batch (the published tables)",
    (
        *_LLAVA_MED_OPEN,
        Score(
            "open_accuracy",
            "The reference is a substring of the reply.",
            _llava_med_batch("open_accuracy", False),
        ),
        Score(
            "closed_accuracy",
            'The reference is a substring of the reply: "no" is found in "normal", "yes" in "eyes".',
            _llava_med_batch("closed_accuracy", True),
        ),
        Score("closed_recall", "Word recall of closed questions.", _llava_med_batch("recall_closed", True)),
    ),
)


def _mmmu(read: Callable[..., str]) -> Callable[[Item], Given]:
    def mark(item: Item) -> Given:
        letter = read(item.answer, item.choices)
        return Mark(0.0, "random") if letter == mmmu_choice.RANDOM else float(letter == item.gold)

    return when(is_choice, mark)


def _letter(read: Callable[[Item], str | None]) -> Callable[[Item], Given]:
    def mark(item: Item) -> Given:
        letter = read(item)
        if letter == options.REFUSED:
            return Mark(0.0, "refused")
        return float(letter == item.gold) if letter else Mark(0.0, "unparsed")

    return when(is_choice, mark)


def _yes_no(read: Callable[[str], str]) -> Callable[[Item], Given]:
    def mark(item: Item) -> Given:
        said = read(item.answer).lower()
        return float(said == item.gold.lower()) if said in ("yes", "no") else Mark(0.0, "unparsed")

    return when(is_yes_no, mark)


def _pope_numbers(read: Callable[[str], str], about: str, **how: bool) -> CorpusScores:
    def numbers(items: Sequence[Item]) -> dict[str, float]:
        pairs = [(read(item.answer).lower(), item.gold.lower()) for item in items]
        return {f"pope_{name}": value for name, value in yes_no.confusion_scores(pairs, **how).items()}

    return CorpusScores(f"POPE, yes as the positive class; {about}", is_yes_no, numbers)


def _mme_numbers(read: Callable[[str], str]) -> CorpusScores:
    def numbers(items: Sequence[Item]) -> dict[str, float]:
        rows = [
            (yes_no.mme_category(item.category), item.image, read(item.answer).lower() == item.gold.lower())
            for item in items
        ]
        points = yes_no.mme_scores(rows)
        return {f"mme_{name}": points[name] for name in ("perception", "cognition")}

    return CorpusScores(
        "MME points: of each category 100 x questions right + 100 x images with all right, summed.",
        lambda item: is_yes_no(item) and bool(yes_no.mme_category(item.category)),
        numbers,
    )


def _vqa(score: Callable[[str, Sequence[str]], float]) -> Callable[[Item], Given]:
    return when(has_annotators, lambda item: score(item.answer, item.references))


def _relaxed(compare: Callable[[str, str], bool]) -> Callable[[Item], Given]:
    return when(is_short, best(compare))


_ANLS = Score(
    "anls",
    "1 minus the edit distance over the length, 0 below 0.5; the best reference.",
    when(is_short, lambda item: documents.anls(item.answer, item.references)),
)
_MMMU_OPEN = Score(
    "mmmu_open",
    "The reference stands in a parsed tail of the reply, or is one of its numbers to two decimals.",
    when(
        is_short, lambda item: float(mmmu_open.is_right(mmmu_open.parse(item.answer), list(item.references)))
    ),
)
_ANNOTATORS = "min(1, other annotators who said it / 3), averaged; needs several references"

LMMS_EVAL = Profile(
    "lmms_eval",
    2,
    "lmms-eval 0.7",
    (
        Score("exact_match", "Equality of the whole string, case and spaces included.",
              when(is_short, best(exact.lmms_exact_match))),
        Score("slake", "SLAKE: equality after case, brackets and punctuation; numbers, articles, plurals stay.",
              when(lambda item: is_short(item) or is_yes_no(item), best(slake.slake_match))),
        Score("pope", 'POPE: the stripped reply equals the reference; "Yes." is wrong.', _yes_no(yes_no.pope_lmms)),
        Score("mme", 'MME: yes or no among the first four characters ("None" is a no).', _yes_no(yes_no.mme_lmms)),
        Score("vqav2", f"VQAv2: {_ANNOTATORS}; text is always cleaned.", _vqa(soft.lmms_vqav2)),
        Score("textvqa", f"TextVQA: {_ANNOTATORS}; tokenised first.", _vqa(soft.lmms_textvqa)),
        _ANLS,
        Score("relaxed", "ChartQA: numbers within 5 % of the reference, else equal text.",
              _relaxed(documents.relaxed)),
        _MMMU_OPEN,
        Score("mmmu_choice", '"(B)", "B ", "B.", the option\'s text; else an option by chance, here wrong.',
              _mmmu(mmmu_choice.lmms_eval)),
        Score("mcq", 'A letter that begins or ends the reply, follows "answer is", or stands as "(B)" or "B."; else '
              "the last one anywhere.",
              _letter(lambda item: options.lmms_option(item.answer, list(item.choices)))),
        Score("scienceqa", "The reply is the letter, or begins with it and a full stop.",
              when(is_choice, lambda item: scienceqa.lmms(item.answer, item.gold))),
        set_scores.ocrbench(fold_width=True),
    ),
    (
        _pope_numbers(yes_no.pope_lmms, "a reply that is neither is no error of either kind, so that precision "
                      "and recall look better than accuracy; the yes ratio is the labels'.", ratio_of_gold=True),
        _mme_numbers(yes_no.mme_lmms),
    ),
)  # fmt: skip

VLMEVALKIT = Profile(
    "vlmevalkit",
    2,
    "VLMEvalKit, revision e8e78f05, without a judge",
    (
        Score("accuracy", "Equality without case and outer spaces.", when(is_short, best(exact.vlmevalkit_accuracy))),
        Score("yes_no", "Exactly one of the words yes and no occurs, and it is the reference.",
              _yes_no(yes_no.yes_no_vlmevalkit)),
        Score("vqa_score", f"{_ANNOTATORS}.", _vqa(soft.vlmevalkit)),
        _ANLS,
        Score("relaxed", "ChartQA: numbers within 5 % of the reference, else equal text, reply stripped.",
              _relaxed(documents.relaxed_vlmevalkit)),
        Score("exact_matching", "The option by lone letter among the last four words, else by text; else wrong.",
              _letter(lambda item: options.can_infer(item.answer, item.choices))),
        Score("first_letter", "The first capital A to E once lead-ins are gone; an empty reply is an A.",
              _letter(lambda item: options.first_letter(item.answer))),
        set_scores.ocrbench(),
    ),
    (
        _pope_numbers(yes_no.yes_no_vlmevalkit, "a reply that is neither counts as a no.", other_is_no=True),
        _mme_numbers(yes_no.yes_no_vlmevalkit),
        CorpusScores("pycocoevalcap's BLEU, ROUGE-L and CIDEr of raw text, without tokenizer.", is_report,
                     lambda items: caption_numbers(items, str)),
    ),
)  # fmt: skip


def _medevalkit_open(name: str) -> Callable[[Item], Given]:
    def mark(item: Item) -> Given:
        try:
            return medevalkit.open_scores(medevalkit.extract(item.answer).strip(), item.gold)[name]
        except ValueError:
            return Mark(0.0, "failed")

    return when(is_short, mark)


def _medevalkit_closed(item: Item) -> Given:
    said = medevalkit.extract(item.answer).strip()
    if ("yes" in said) == ("no" in said):
        return Mark(0.0, "unparsed")
    return float(medevalkit.judgement(said, item.gold))


def _medevalkit_report(item: Item) -> Given:
    gold, said = report_text.radcliq_words(item.gold), report_text.radcliq_words(item.answer)
    return sentence_bleu(gold, said, CUMULATIVE[3])


def _medevalkit_rouge(item: Item) -> Given:
    try:
        return rouge.rouge_sets(item.answer.lower(), item.gold.lower())["rouge-l"]
    except ValueError:
        return Mark(0.0, "failed")


MEDEVALKIT = Profile(
    "medevalkit",
    1,
    "MedEvalKit, revision 9b12e3b3, without a judge",
    (
        Score("judgement", 'Exactly one of "yes" and "no" is a substring, and it is the reference ("normal" is a no).',
              when(is_yes_no, _medevalkit_closed)),
        Score("em", "Equality without case, after boxes and lead-ins are taken off.", _medevalkit_open("em")),
        Score("bleu1", "NLTK's BLEU-1, split at single spaces.", _medevalkit_open("bleu1")),
        Score("rouge1", "F-measure of distinct words, package rouge.", _medevalkit_open("rouge1")),
        Score("token_f1", "F1 of distinct words; MedEvalKit prints it as precision.", _medevalkit_open("precision")),
        Score("token_precision", "Precision of distinct words; MedEvalKit prints it as recall.",
              _medevalkit_open("recall")),
        Score("token_recall", "Recall of distinct words; MedEvalKit prints it as f1.", _medevalkit_open("f1")),
        Score("choice", "By letter, by text, else the option most like the reply: garbage scores about chance.",
              when(is_choice, lambda item: medical_options.medevalkit(item.answer, dict(item.choices), item.gold))),
        Score("mmmu_choice", "MMMU's reading of what stands in the box; else an option by chance, here wrong.",
              _mmmu(mmmu_choice.medevalkit)),
        Score("report_bleu4", "NLTK's sentence BLEU-4, averaged.", when(is_report, _medevalkit_report)),
        Score("report_rouge_l", "Package rouge's ROUGE-L, averaged.", when(is_report, _medevalkit_rouge)),
    ),
)  # fmt: skip


def _rouge_score(name: str) -> Callable[[Item], Given]:
    return when(is_report, best(lambda said, gold: captions.rouge_scores(said, gold)[name]["f"]))


def _omnimedvqa(item: Item) -> Given:
    right = medical_options.omnimedvqa(item.answer, dict(item.choices), item.gold)
    return Mark(0.0, "unparsed") if right is None else float(right)


def _pmc_vqa(item: Item) -> str | None:
    index = medical_options.most_similar(item.answer, list(item.choices.values()))
    return None if index is None else list(item.choices)[index]


def _scienceqa(item: Item) -> str | None:
    letter = scienceqa.llava(item.answer)
    return None if letter == scienceqa.FAILED else letter


OFFICIAL = Profile(
    "official",
    1,
    "Each benchmark's own script",
    (
        Score("vqa", f"VQAv2: {_ANNOTATORS}; cleaned only where the annotators differ.", _vqa(soft.official)),
        Score("pope", "POPE: no, not or No before the first full stop is a no, all else a yes, also an empty reply.",
              _yes_no(yes_no.pope_official)),
        _ANLS,
        Score("relaxed", "ChartQA: numbers within 5 % of the reference, else equal text.",
              _relaxed(documents.relaxed)),
        _MMMU_OPEN,
        Score("mmmu_choice", 'MMMU: "(B)", " B ", the option\'s text; else an option by chance, here wrong.',
              _mmmu(mmmu_choice.official)),
        Score("scienceqa", 'ScienceQA (LLaVA): "B", "B. ...", or one "The answer is B."; else wrong.',
              _letter(_scienceqa)),
        Score("pmc_vqa", "PMC-VQA: the option text most like the reply.", _letter(_pmc_vqa)),
        Score("omnimedvqa", "OmniMedVQA: the same; a lone letter is compared as a text.",
              when(is_choice, _omnimedvqa)),
        Score("medxpertqa", "MedXpertQA: the first stand-alone capital letter behind the trigger.",
              _letter(lambda item: medical_options.medxpertqa(item.answer, list(item.choices)))),
        Score("report_rouge2", "LLaVA-Rad's: rouge-score's ROUGE-2, F-measure, averaged.", _rouge_score("rouge2")),
        Score("report_rouge_l", "LLaVA-Rad's: rouge-score's ROUGE-L, F-measure, averaged.", _rouge_score("rougeL")),
        set_scores.MMMU,
        set_scores.SCIENCEQA_IMG,
        set_scores.ocrbench(),
    ),
    (
        _pope_numbers(yes_no.pope_official, "everything without a no is a yes."),
        CorpusScores("R2Gen: BLEU, ROUGE-L and CIDEr after its cleaning for MIMIC-CXR; its cut at 100 words and "
                     "its vocabulary are not applied.", set_scores.is_other_report,
                     lambda items: caption_numbers(items, report_text.r2gen_clean)),
        CorpusScores("R2Gen: the same after its cleaning for IU X-ray; its cut at 60 words and its vocabulary are not "
                     "applied.", set_scores.is_iu_xray,
                     lambda items: caption_numbers(items, set_scores.clean_iu_xray)),
    ),
)  # fmt: skip

REFERENCES: tuple[Profile, ...] = (
    LLAVA_MED_V1,
    LLAVA_MED_V1_BATCH,
    LMMS_EVAL,
    VLMEVALKIT,
    MEDEVALKIT,
    OFFICIAL,
)
