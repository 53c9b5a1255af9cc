"""The trainings from examples to a model that a recipe loads, on tiny models made here: the loss falls."""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from rag import matching
from rag.errors import UsageError
from rag.models import ModelStore
from rag.training import crossencoder, export, generator, loop, matcher, recipes, reranker, support
from rag.training.grounded import Example, Piece
from rag.training.recipes import Product
from rag.training.reranker import Ranking
from rag.training.support import SupportPair
from rag.verify import LABELS

try:
    loop.require_extra()
except UsageError as error:
    pytest.skip(str(error), allow_module_level=True)

DISEASES = "malaria gout asthma measles scurvy anthrax mumps rabies".split()  # noqa: SIM905
CAUSES = "parasites urate allergens virus lemons spores cough dogs".split()  # noqa: SIM905
KNOWN = dict(zip(DISEASES, CAUSES, strict=True))


# --- examples: so plain that a word tells ----------------------------------------------------------


def said(disease: str, what: str = "cause") -> str:
    return f"The {what} of {disease} is {KNOWN[disease]}."


def rankings(count: int, seed: int) -> list[Ranking]:
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        asked, *others = chance.sample(DISEASES, 4)
        beside = tuple(said(other, "history") for other in others)
        made.append(Ranking(f"What causes {asked}?", (said(asked),), beside))
    return made


def pairs(count: int, seed: int) -> list[SupportPair]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        label = LABELS[number % 3]
        one = chance.choice(DISEASES)
        what = {"supported": "cause", "contradicted": "not cause", "not_stated": "history"}[label]
        sentence = said(one, what)
        made.append(SupportPair(sentence, said(one), label, "made"))  # type: ignore[arg-type]
    return made


def asked(count: int, seed: int) -> list[matcher.QuestionPair]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        one = f"What is the cause of {chance.choice(DISEASES)}?"
        other = one.replace("is the", "causes the" if number % 2 else "history")
        made.append(matcher.QuestionPair(one, other, bool(number % 2), "made"))
    return made


def examples(count: int, seed: int) -> list[Example]:
    """Two questions a sheet."""
    chance = random.Random(seed)
    made: list[Example] = []
    while len(made) < count:
        shown = chance.sample(DISEASES, 3)
        passages = tuple(Piece(disease, said(disease)) for disease in shown)
        for at in chance.sample(range(3), 2):
            answer = said(shown[at]).replace(".", f" [{at + 1}].")
            made.append(Example(f"e{len(made)}", "one", f"What causes {shown[at]}?", passages, answer, (at + 1,)))
    return made[:count]


# --- tiny bases, as wheels -------------------------------------------------------------------------


def tokenizer(special: Mapping[str, str], template: str | None, folder: Path) -> int:
    """Splits into words; knows every word of the examples. Returns the size of its vocabulary."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = [said(disease) for disease in DISEASES] + ["What causes not history?"]
    texts += [str(message["content"]) for message in examples(1, 0)[0].messages]
    texts += ["user system assistant [1] [2] [3]"]
    split = pre_tokenizers.Split(Regex(r"<[a-z|]+>|\w+|[^\w\s]"), "removed", invert=True)
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)} - set(special.values()))
    vocabulary = {word: number for number, word in enumerate([*special.values(), *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    made.pre_tokenizer = split
    if "cls_token" in special:
        ends = [(special[name], vocabulary[special[name]]) for name in ("sep_token", "cls_token")]
        made.post_processor = processors.BertProcessing(*ends)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if "cls_token" in special else [])]
    fast = PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=names, **special)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(vocabulary)


def bert(folder: Path) -> None:
    encoder(folder, "bert")


def mpnet(folder: Path) -> None:
    encoder(folder, "mpnet")


def encoder(folder: Path, architecture: str) -> None:
    from transformers import AutoConfig, AutoModel

    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<cls>", "sep_token": "<sep>"}
    size = tokenizer(names, None, folder)
    torch.manual_seed(0)
    AutoModel.from_config(
        AutoConfig.for_model(
            architecture,
            vocab_size=size,
            pad_token_id=0,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=256,
            initializer_range=0.2,  # else all texts look alike
        )
    ).save_pretrained(folder)


TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)


def llama(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = tokenizer(
        {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, TEMPLATE, folder
    )
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
    ).to(torch.bfloat16).save_pretrained(folder)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`site/tiny_bert` and `site/tiny_llama` on `sys.path`, and a recipe of each under `recipes`."""
    root = tmp_path_factory.mktemp("training")
    for name, make in {"tiny_bert": bert, "tiny_mpnet": mpnet, "tiny_llama": llama}.items():
        folder = root / "site" / name / "model"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        make(folder)
        recipe = {
            "description": name,
            "kind": "generator" if name == "tiny_llama" else "encoder",
            "licence": "Apache-2.0",
            "origin": f"rag/{name}",
            "base": {"wheel": name, "package": name, "path": "model"},
            "format": "folder",
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())},
            "disk_mb": 1,
        }
        (root / "recipes" / name).mkdir(parents=True)
        (root / "recipes" / name / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    sys.path.insert(0, str(root / "site"))
    yield root
    sys.path.remove(str(root / "site"))


@pytest.fixture
def root(wheels: Path, tmp_path: Path) -> Path:
    shutil.copytree(wheels / "recipes", tmp_path / "recipes")
    return tmp_path


def shipped(root: Path, product: Product, folder: Path) -> Path:
    """The folder of the model that the exported recipe builds, in a store of its own."""
    recipes.write("tiny", product, folder, root / "recipes", root / "results")
    return ModelStore(root / "recipes", root / "store").build("tiny")


def product(kind: Any, base: str, labels: Sequence[str] = ()) -> Product:
    loras = {"reranker": reranker.LORA, "support": support.LORA, "matcher": matcher.SMALL.lora}
    rank, alpha = (loras[kind].rank, loras[kind].alpha) if kind in loras else (generator.RANK, generator.ALPHA)
    return Product(kind, base, f"a tiny {kind}", rank, alpha, (), tuple(labels))


def first_and_last(folder: Path) -> tuple[float, float]:
    curve = [entry["eval_loss"] for entry in loop.read_curve(folder / loop.CURVE) if "eval_loss" in entry]
    return curve[0], curve[-1]


# --- each of them ----------------------------------------------------------------------------------


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps teach a tiny model nothing at the rate that suits a large one."""
    monkeypatch.setattr(generator, "LEARNING_RATE", 1e-2)
    lora = crossencoder.Lora(rank=48, learning_rate=1e-2)
    for module, a_step in ((reranker, ("LISTS_A_STEP", 4)), (support, ("PAIRS_A_STEP", 32))):
        monkeypatch.setattr(module, "LORA", lora)
        monkeypatch.setattr(module, *a_step)
    for size in ("SMALL", "LARGE"):
        monkeypatch.setattr(matcher, size, replace(getattr(matcher, size), lora=lora, pairs_a_step=32))


def train_reranker(base: Path, folder: Path, steps: int | None = None) -> Any:
    return reranker.train(base, folder, rankings(160, 0), rankings(24, 1), seed=0, steps=steps)


def train_support(base: Path, folder: Path, steps: int | None = None) -> Any:
    return support.train(base, folder, pairs(1280, 0), pairs(96, 1), seed=0, steps=steps)


def train_matcher(base: Path, folder: Path, steps: int | None = None) -> Any:
    """Begins with the adapter of a support checker that has learnt nothing."""
    from sentence_transformers.cross_encoder import CrossEncoder

    folder.mkdir(exist_ok=True)
    begin = folder / "begin.safetensors"
    if not begin.exists():
        torch.manual_seed(1)
        checker = CrossEncoder(str(base), num_labels=len(LABELS), local_files_only=True)
        crossencoder.adapt(checker, matcher.SMALL.lora)
        export.write_adapter(checker.transformers_model, begin)
    return matcher.train(base, folder, asked(1280, 0), asked(96, 1), begin, size=matcher.SMALL, seed=0, steps=steps)


def train_large_matcher(base: Path, folder: Path, steps: int | None = None) -> Any:
    return matcher.train(base, folder, asked(1280, 0), asked(96, 1), None, size=matcher.LARGE, seed=0, steps=steps)


CASES: dict[str, tuple[Callable[..., Any], str, tuple[str, ...]]] = {
    "reranker": (train_reranker, "tiny_bert", ("relevant",)),
    "support": (train_support, "tiny_bert", LABELS),
    "matcher": (train_matcher, "tiny_bert", (matching.LABEL,)),
    "large matcher": (train_large_matcher, "tiny_mpnet", (matching.LABEL,)),
}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("kind", CASES)
def test_a_cross_encoder_learns_and_its_recipe_gives_the_same_logits(wheels: Path, root: Path, kind: str) -> None:
    from sentence_transformers import CrossEncoder

    train, base, labels = CASES[kind]
    folder = root / "training"
    model = train(wheels / "site" / base / "model", folder)
    first, last = first_and_last(folder)
    assert last < 0.8 * first
    built = CrossEncoder(
        str(shipped(root, product(kind.split()[-1], base, labels), folder)), device="cpu", local_files_only=True
    )
    asked = [("What causes gout?", said(disease)) for disease in DISEASES]
    expected, found = (torch.as_tensor(one.predict(asked, activation_fn=torch.nn.Identity())) for one in (model, built))
    # The adapter is shipped in BF16. One that isn't merged, or badly, is off by as much as the logits are large.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1 * float(expected.abs().max()))
    assert list(built.model.config.id2label.values()) == list(labels)


@pytest.mark.usefixtures("fast")
def test_the_generator_learns_and_its_recipe_gives_the_same_loss(wheels: Path, root: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = root / "training"
    base = wheels / "site" / "tiny_llama" / "model"
    unseen = examples(16, 1)
    generator.train(base, folder, examples(256, 0), unseen, seed=0, eval_every=16)
    first, last = first_and_last(folder)
    assert last < 0.8 * first
    # Of the steps between, also where a step is taken in parts.
    losses = [entry["loss"] for entry in loop.read_curve(folder / loop.CURVE) if "loss" in entry]
    assert 0.8 * last < min(losses) < max(losses) < 1.1 * first
    built = shipped(root, product("generator", "tiny_llama"), folder)
    words = AutoTokenizer.from_pretrained(built)
    _, batches = generator._batched(words, examples(256, 0), unseen, 0, None)
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(built, dtype=torch.bfloat16)
        losses = [float(generator.answer_loss(loaded, generator.collate([batch]))) for batch in batches]
    assert sum(losses) / len(losses) == pytest.approx(last, rel=0.03)


def test_a_matcher_goes_on_from_what_it_begins_with(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a step changes nothing, it ends with that, but for a head of other labels."""
    monkeypatch.setattr(matcher, "SMALL", replace(matcher.SMALL, lora=crossencoder.Lora(rank=48, learning_rate=0.0)))
    train_matcher(wheels / "site" / "tiny_bert" / "model", tmp_path, steps=1)
    begun, ended = load_file(tmp_path / "begin.safetensors"), end_of(tmp_path)
    head = {"classifier.weight", "classifier.bias"}
    assert set(begun) == set(ended)
    assert {name for name in begun if not torch.equal(begun[name], ended[name])} == head
    assert [ended[name].shape[0] for name in sorted(head)] == [1, 1]
    again = tmp_path / "again"
    again.mkdir()
    shutil.copyfile(tmp_path / export.ADAPTER, again / "begin.safetensors")
    train_matcher(wheels / "site" / "tiny_bert" / "model", again, steps=1)
    assert all(torch.equal(tensor, ended[name]) for name, tensor in end_of(again).items())


# --- stopped and gone on with ----------------------------------------------------------------------


def end_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / export.ADAPTER)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("kind", CASES)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The head too, which PEFT leaves out of its checkpoints, whatever its labels."""
    train, name, _ = CASES[kind]
    base = wheels / "site" / name / "model"
    for trained in (reranker, support, matcher):
        monkeypatch.setattr(trained, "EVERY", 4)
    train(base, tmp_path, steps=8)
    whole, curve = end_of(tmp_path), (tmp_path / loop.CURVE).read_text()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
    # As a kill while the second was written leaves it.
    (tmp_path / "checkpoint-8" / "trainer_state.json").unlink()
    (tmp_path / export.ADAPTER).unlink()
    train(base, tmp_path, steps=8)
    again = end_of(tmp_path)
    assert set(again) == set(whole)
    for name, tensor in whole.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6)
    assert (tmp_path / loop.CURVE).read_text() == curve


@pytest.mark.usefixtures("fast")
def test_a_checkpoint_without_its_head_is_not_gone_on_from(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = wheels / "site" / "tiny_bert" / "model"
    monkeypatch.setattr(reranker, "EVERY", 2)
    train_reranker(base, tmp_path, steps=2)
    (tmp_path / "checkpoint-2" / crossencoder.TRAINED).unlink()
    with pytest.raises(UsageError, match=r"checkpoint-2/trained\.safetensors is missing"):
        train_reranker(base, tmp_path, steps=4)


def test_too_few_examples_are_refused(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="16 to train on, 1 held out"):
        generator.train(wheels / "site" / "tiny_llama" / "model", tmp_path, examples(31, 0), examples(2, 1), seed=0)
