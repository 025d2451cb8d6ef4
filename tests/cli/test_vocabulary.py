"""The small tokenizer: one result from `tokenizers` and from transformers, special ids as config.json states them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.checkpoint import official
from cli.checkpoint.random import configurations, write_random
from cli.checkpoint.vocabulary import PRE_TOKENIZER_PATTERN, write_tokenizer


def assemble(directory):
    """A tokenizer straight from the official files, as a service reads them."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocab = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(line.split(" ")) for line in lines[1:]]))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRE_TOKENIZER_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))["added_tokens_decoder"]
    for _, token in sorted(added.items(), key=lambda item: int(item[0])):
        tokenizer.add_tokens([AddedToken(token["content"], normalized=False, special=token["special"])])
    return tokenizer


@pytest.fixture(scope="module", params=["tiny", "0.6B"])
def tokenizers_of(request, tmp_path_factory):
    from transformers import Qwen2Tokenizer

    directory = tmp_path_factory.mktemp("tokenizer")
    count = official.TINY_ORDINARY_TOKEN_COUNT if request.param == "tiny" else official.REAL_ORDINARY_TOKEN_COUNT
    write_tokenizer(directory, count, official.TINY_ORDINARY_TOKEN_COUNT)
    return request.param, assemble(directory), Qwen2Tokenizer.from_pretrained(directory)


def test_special_tokens_have_the_ids_of_config_json(tokenizers_of):
    like, ours, theirs = tokenizers_of
    config = configurations(like)[0]
    for field, token in official.TEXT_IDS.items():
        assert ours.token_to_id(token) == config[field] == theirs.convert_tokens_to_ids(token)
        assert ours.encode(token, add_special_tokens=False).ids == [config[field]]
    assert ours.get_vocab_size() <= config["talker_config"]["text_vocab_size"]


def test_a_role_is_three_tokens(tokenizers_of):
    like, ours, _ = tokenizers_of
    role = ours.encode("<|im_start|>assistant\n", add_special_tokens=False).ids
    assert len(role) == 3
    assert ours.encode("user\n", add_special_tokens=False).ids[1:] == role[2:] == [198]
    if like == "0.6B":
        assert role == [151644, 77091, 198]


@settings(deadline=None, max_examples=150)
@given(
    text=st.text(
        st.one_of(st.sampled_from("abc sdtIl'.,!?\n\t12你好，はй한é<|>_"), st.characters(exclude_categories=["Cs"])),
        max_size=40,
    )
)
def test_both_libraries_agree_and_lose_nothing(tokenizers_of, text):
    import unicodedata

    _, ours, theirs = tokenizers_of
    ids = ours.encode(text, add_special_tokens=False).ids
    assert ids == theirs(text).input_ids
    assert ours.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_the_ordinary_vocabulary_is_dense(tmp_path):
    for count in (official.TINY_ORDINARY_TOKEN_COUNT, official.REAL_ORDINARY_TOKEN_COUNT):
        write_tokenizer(tmp_path, count, official.TINY_ORDINARY_TOKEN_COUNT)
        vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
        assert sorted(vocab.values()) == list(range(count))


def test_common_words_are_merged(tmp_path):
    ours = assemble(write_random(tmp_path))
    sentence = "Good morning, please read this sentence aloud, and listen to the rain."
    assert len(ours.encode(sentence).ids) < len(sentence) / 2
