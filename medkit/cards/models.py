"""What the cards hold: pydantic models of recipe, curriculum, domain and benchmark.

Every model refuses unknown keys and never converts one type into another: a card says what it means.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, StringConstraints

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME.pattern}$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=1)]
SampleKind = Literal["caption", "description", "conversation", "reasoning", "question", "record"]
Scorer = Literal["answer", "exact", "contained", "token_recall", "f1", "yes_no", "choice"]
LicenceUse = Literal["any", "research", "commercial"]
ProfileName = Literal[
    "medkit", "llava_med_v1", "llava_med_v1_batch", "lmms_eval", "vlmevalkit", "medevalkit", "official"
]


def _workers(value: Any) -> int | str:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024):
        return value
    raise ValueError("must be a whole number of processes of at least 1, or auto")


def _threads(value: Any) -> int | str:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024):
        return value
    raise ValueError("must be a whole number of threads of at least 1, or auto")


def _licence(value: str) -> str:
    # The two words differ by one letter: a use in the licence's place would filter nothing.
    if value in get_args(LicenceUse):
        raise ValueError("must be the data's licence; what it is wanted for is data.license")
    return value


class Card(BaseModel):
    """The rules that all cards share."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Trained(Card):
    """Learning rates of the parts; a part at 0 is frozen."""

    vision: Rate = 0.0
    projector: Rate = 0.0
    language: Rate = 0.0


class Stage(Card):
    """One training stage of a curriculum.

    Attributes:
        start: ``base`` or the stage whose model this one goes on from.
        objective: ``answer`` trains answers; ``see`` trains the vision tower on labels and boxes.
        places: With ``see``: every patch also learns where its object lies, and which patch is its centre.
        on: Kinds of samples that the stage reads.
        train: Peak learning rate of each part.
        epochs: Passes over the samples; a fraction is a part of a pass.
        batch: Samples, or packed sequences, of one optimiser step; ``micro_batch`` of them are in memory at a time.
        warmup: Share of the steps in which the learning rate rises.
        clip: Largest norm of the gradient; 0 leaves it as it is.
        optimizer: ``muon`` uses Muon for the matrices inside transformer blocks and AdamW for the rest; those
            that end in ``8bit`` keep their state in 8 bits, through bitsandbytes.
        replay: Share of samples drawn from the replay domain, against forgetting.
        augment: How training pictures vary: ``flip`` (left-right, skipped where the text speaks of sides),
            ``shift`` (moved and scaled a little), ``colour``.
        validate_every: Steps between two validation losses; ``patience`` without a gain stop the stage.
        max_tokens: Longest sample, or packed sequence, in tokens, image tokens included.
        too_long: What becomes of a longer conversation; ``drop_turns`` leaves out its oldest questions.
        turns: ``apart`` learns every question of a conversation as if it were asked alone.
        pack: Samples of the same pictures share one sequence and see nothing of each other.
        save_dtype: Type of a full checkpoint on disk; the type in memory when left out.
    """

    title: str = ""
    start: Name = "base"
    objective: Literal["answer", "see"] = "answer"
    places: bool = False
    on: Annotated[list[SampleKind], Field(min_length=1)] = [
        "caption",
        "description",
        "conversation",
        "reasoning",
    ]
    train: Trained
    epochs: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    batch: Positive = 16
    micro_batch: Positive | None = None
    warmup: Share = 0.03
    optimizer: Literal["adamw", "muon", "adamw8bit", "paged_adamw8bit", "lion8bit"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    clip: Annotated[float, Field(ge=0)] = 1.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: list[Literal["flip", "shift", "colour"]] = []
    validate_every: Positive | None = None
    patience: Positive | None = None
    checkpoint_every: Positive | None = None
    gradient_checkpointing: bool = False
    max_tokens: Positive = 2048
    too_long: Literal["reject", "drop_turns"] = "reject"
    turns: Literal["together", "apart"] = "together"
    pack: bool = False
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = []


class Curriculum(Card):
    """Training stages and the order in which they start from one another."""

    name: Name
    description: Text
    paper: str = ""
    final: Name
    stages: Annotated[dict[Name, Stage], Field(min_length=1)]


class DomainData(Card):
    """Where a domain's records come from.

    Attributes:
        reader: The reader of the source's layout.
        options: What that reader needs to know.
        needs_path: False when nothing is read from a folder (drawn domains).
        env: Environment variable that holds the path when the recipe gives none.
        where: One sentence: where the set can be had.
        splits: Source split name -> train, valid or test.
        license: What the data is wanted for; records whose licence doesn't allow it stay out.
    """

    reader: Name
    options: dict[str, Any] = {}
    needs_path: bool = True
    env: str = ""
    where: str = ""
    splits: dict[str, Literal["train", "valid", "test"]] = {}
    license: LicenceUse = "any"


class Domain(Card):
    """A specialty: its data, its teacher and a tiny invented fixture."""

    name: Name
    title: Text
    description: Text
    licence: Annotated[Text, AfterValidator(_licence)]
    data: DomainData
    teacher: str = "teacher.yaml"
    fixture: str | None = None


class Source(Card):
    """Whose questions a benchmark asks; ``same`` is the recipe's own domain.

    Attributes:
        ask: ``questions`` that the data has, or ``pope``: whether things are there, made of its annotations.
        of: With ``pope``: ``label`` asks about boxed objects, any other name about that label of the image.
    """

    domain: Name = "same"
    split: Literal["test", "valid", "train"] = "test"
    ask: Literal["questions", "pope"] = "questions"
    of: Text = "label"


class BenchmarkData(Card):
    """Where a benchmark's own rows come from: a folder, or a data set of the hub.

    Attributes:
        path: Folder; relative ones start at the working folder. ``env`` names a variable with one.
        hub: Data set id, read when no folder is given; ``revision`` is its commit, branch or tag.
        hub_files: Patterns of the files that are fetched; all when empty.
        splits: The source's split name -> train, valid or test; ``source.split`` says which part is asked.
        expected: Counts of the part that is asked; what differs is told.
    """

    reader: Name = "questions"
    options: dict[str, Any] = {}
    path: str = ""
    env: str = ""
    hub: str = ""
    revision: str = ""
    hub_files: list[Text] = []
    where: str = ""
    splits: dict[str, Literal["train", "valid", "test"]] = {}
    expected: dict[Literal["questions", "images", "closed", "yes_no", "choice"], Positive] = {}


class Benchmark(Card):
    """Questions with a headline scorer and controls.

    Attributes:
        corruptions: The same questions again with pictures made worse, at each of ``severities`` (1 to 5).
        answering: ``generate`` reads the greedy reply. ``likelihood`` takes the most probable candidate where a
            question has options or is yes/no; ``likelihood_per_token`` divides by the candidate's length.
        metrics: Names of the profile's scores that are published for this set.
        notes: What else a reader of its numbers must know.
    """

    name: Name
    title: Text
    description: Text
    licence: Text
    citation: str = ""
    source: Source = Source()
    data: BenchmarkData | None = None
    fixture: str | None = None
    scorer: Scorer = "answer"
    profile: ProfileName = "medkit"
    metrics: list[Text] = []
    notes: str = ""
    limit: Positive | None = None
    controls: list[Literal["blank", "shuffled", "noise", "text"]] = ["blank", "shuffled"]
    corruptions: list[Literal["noise", "blur", "contrast", "jpeg", "window"]] = []
    severities: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=1)] = [1, 3, 5]
    answering: Literal["generate", "likelihood", "likelihood_per_token"] = "generate"
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 16


class Adapter(Card):
    """How weights change: as a whole, or by a small addition (the projector is trained whole beside it).

    Attributes:
        kind: ``full`` changes the weights; the others add to them and are saved alone.
        rank, alpha, dropout, targets: Of the low-rank kinds (lora, rslora, dora, pissa, adalora).
        prompt_tokens, prompt_layers: Of llama_adapter: learnt tokens of a layer, and layers from the top.
        quantize: The language model's frozen weights are kept in 4 (nf4) or 8 bits while the adapter learns.
    """

    kind: Literal["full", "lora", "rslora", "dora", "pissa", "adalora", "ia3", "llama_adapter"] = "full"
    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: list[Text] = []
    prompt_tokens: Positive = 10
    prompt_layers: Positive | None = None
    quantize: Literal["none", "nf4", "int8"] = "none"


class Hardware(Card):
    """What the recipe runs on.

    Attributes:
        threads: Of one process; ``auto`` takes $OMP_NUM_THREADS, else all cores.
        processes: So many processes of this machine train a stage and answer questions, one a GPU.
        engine: ``ray`` has a Ray cluster run the processes that answer; stages are trained on this machine.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: Annotated[int | str, PlainValidator(_threads)] = "auto"
    processes: Positive = 1
    engine: Literal["local", "ray"] = "local"


class Replay(Card):
    """General data against forgetting; ``count`` limits its training images."""

    domain: Name = "scenes"
    count: Positive | None = None


class IngestSettings(Card):
    """How many records are read, and the seed of the valid split.

    Attributes:
        limit: Most records that are read; None reads all.
        train, valid, test: Pictures of each split, for domains that medkit draws.
        workers: Processes that decode and render pictures; ``auto`` takes one, after a second one a processor.
        engine: ``ray`` has a Ray cluster do what the workers do; the dataset is the same.
        license: Takes the place of the domain cards' ``data.license``.
    """

    limit: Positive | None = None
    train: Positive | None = None
    valid: Positive | None = None
    test: Positive | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int | str, PlainValidator(_workers)] = "auto"
    engine: Literal["local", "ray"] = "local"
    license: LicenceUse | None = None


class TeacherSettings(Card):
    """How much text the teacher makes of an image.

    Attributes:
        apart: Questions will be learnt one by one (``turns: apart``), so one may be asked although an earlier
            one tells its answer.
    """

    conversations_per_image: Annotated[int, Field(ge=0, le=100)] = 1
    apart: bool = False
    questions_per_image: Annotated[int, Field(ge=0, le=100)] = 4
    seed: Annotated[int, Field(ge=0)] = 0


class Build(Card):
    """Sizes of a model that is built from nothing (``base: build``).

    Attributes:
        language_inner: Width of the language model's feed-forward layers.
        head_width: Width of one attention head, in both towers.
        positions: Longest sequence in tokens.
        words_from: Domains whose teacher cards give the tokenizer their words, besides the recipe's own text.
    """

    image_px: Positive = 64
    patch_px: Positive = 8
    vision_width: Positive = 160
    vision_layers: Positive = 4
    language_width: Positive = 192
    language_layers: Positive = 4
    language_inner: Positive = 512
    head_width: Positive = 32
    vocabulary: Positive = 2048
    positions: Positive = 512
    words_from: list[Name] = []


class Recipe(Card):
    """One adaptation: base, domain, curriculum, adapter, hardware and benchmarks."""

    name: Name
    title: Text
    description: str = ""
    base: Text
    build: Build | None = None
    domain: Name
    data: str | None = None
    curriculum: Name
    adapter: Adapter = Adapter()
    hardware: Hardware = Hardware()
    benchmarks: Annotated[list[Name], Field(min_length=1)] = ["held-out"]
    replay: Replay = Replay()
    ingest: IngestSettings = IngestSettings()
    teacher: TeacherSettings = TeacherSettings()
    stages: dict[str, dict[str, Any]] = {}
    seed: Annotated[int, Field(ge=0)] = 0
