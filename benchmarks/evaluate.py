"""What batched answering is worth: answers a second against a loop of one question at a time, and the same text.

    OMP_NUM_THREADS=1 python benchmarks/evaluate.py --data runs/phantom/2-teach
    OMP_NUM_THREADS=1 python benchmarks/evaluate.py --data runs/phantom/2-teach --each 2

Both ask the same test questions of a dataset folder, greedily, in float32, with the same prompts. The loop is what
LLaVA-Med's scripts and lmms-eval's LLaVA do by default: every question opens and prepares its picture, has a
processor call and a generate. Best of the rounds, taken in turn; loading is not counted, preparing pictures is, on
both sides. With --controls both ask under the controls of an evaluation, too: blank and shuffled pictures. medkit
prepares pictures in a second thread, which a second core speeds up; --cores 1 keeps everything on one core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

import torch
from train_step import processor as processor_name

from medkit.evaluation.evaluate import SMALL_BATCH, _images_of, _model_folder
from medkit.evaluation.generate import answer_questions
from medkit.evaluation.questions import Question, read_questions, with_controls
from medkit.evaluation.replies import Key
from medkit.models.greedy import greedy_config
from medkit.models.load import load_model
from medkit.store import open_dataset
from medkit.training.encode import render_prompt


def main() -> None:
    """Measures and prints the table; stops where a text differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("checkpoints/tiny-general"))
    parser.add_argument("--data", type=Path, required=True, help="a dataset folder with test questions")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--each", type=int, default=0, help="at most so many questions a picture; 0: all")
    parser.add_argument("--batch", type=int, default=SMALL_BATCH)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--controls", action="store_true", help="ask with blank and shuffled pictures, too")
    parser.add_argument("--cores", type=int, default=0, help="stay on so many cores (Linux); 0: all")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    loaded = load_model(_model_folder(arguments.model), "cpu", torch.float32)
    dataset = open_dataset(arguments.data)
    questions = few_each(read_questions(dataset, "benchmark"), arguments.each)[: arguments.limit]
    if arguments.controls:
        questions = with_controls(questions, ["blank", "shuffled"])
    config = greedy_config(loaded.model, loaded.processor.tokenizer, arguments.tokens)

    def loop() -> dict[Key, str]:
        said: dict[Key, str] = {}
        for question in questions:
            # As those loops do: every question opens its picture, also when the one before had the same.
            images = _images_of(dataset, loaded.contract)
            said[question.key] = answer(loaded, question, images(question), config)
        return said

    def batched() -> dict[Key, str]:
        with tempfile.TemporaryDirectory() as folder:
            replies = answer_questions(
                loaded.model,
                loaded.processor,
                questions,
                _images_of(dataset, loaded.contract),
                prompt_of=lambda messages: render_prompt(loaded.processor, messages),
                partial=Path(folder) / "replies",
                batch_size=arguments.batch,
                max_new_tokens=arguments.tokens,
            )
        return {key: reply["answer"] for key, reply in replies.items()}

    ways = {"one at a time": loop, f"batches of {arguments.batch}": batched}
    best = dict.fromkeys(ways, float("inf"))
    texts: dict[str, dict[Key, str]] = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            texts[name] = way()
            best[name] = min(best[name], time.perf_counter() - begun)
    alone, together = texts.values()
    same = sum(alone[name] == together[name] for name in alone)
    pictures = len({ref for question in questions for ref in question.images})
    print(
        f"\n{date.today()}, {processor_name()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    )
    print(f"{len(questions)} questions about {pictures} pictures; {same} texts the same\n")
    print("| way | s | answers/s | times the loop |\n|---|---|---|---|")
    slowest = best["one at a time"]
    for name, seconds in best.items():
        print(f"| {name} | {seconds:.2f} | {len(questions) / seconds:.1f} | {slowest / seconds:.2f} |")
    if same != len(questions):
        raise SystemExit(f"{len(questions) - same} texts differ: the speeds don't compare")


def few_each(questions: list[Question], most: int) -> list[Question]:
    """Keeps at most so many questions about a picture."""
    asked: Counter[tuple[str, ...]] = Counter()
    kept = []
    for question in questions:
        asked[tuple(question.images)] += 1
        if not most or asked[tuple(question.images)] <= most:
            kept.append(question)
    return kept


@torch.inference_mode()
def answer(loaded, question: Question, images: list, config) -> str:
    """Gives one answer by plain transformers."""
    inputs = loaded.processor(
        text=render_prompt(loaded.processor, question.messages),
        images=images or None,
        add_special_tokens=False,
        return_tensors="pt",
    )
    output = loaded.model.generate(**inputs, generation_config=config)
    ids = output[0, inputs["input_ids"].shape[1] :]
    return loaded.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


if __name__ == "__main__":
    main()
