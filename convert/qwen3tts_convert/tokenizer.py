"""The token list of the talker file: the text tokens of a Qwen2 tokenizer, then the codec's.

llama.cpp sees one vocabulary, [text | codec]. Text tokens keep the bytes-as-characters spelling of vocab.json. Codec
tokens are named after their entries in config.json: `<|codec_17|>`, `<|codec_bos|>`, `<|codec_language_english|>`,
`<|spk_vivian|>`; by these names runtimes find them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from qwen3tts_gguf.errors import CheckpointError
from qwen3tts_gguf.model.schema import CODEC_VOCABULARY

from .section import Section

__all__ = ["TokenType", "Tokenizer", "codec_tokens", "read_tokenizer", "require_template_tokens"]

# Keys of config.json, and the token that llama.cpp's pipeline and our runtime look up in their place.
TEMPLATE_TOKENS = {
    "im_start_token_id": "<|im_start|>",
    "im_end_token_id": "<|im_end|>",
    "tts_pad_token_id": "<tts_pad>",
    "tts_bos_token_id": "<tts_text_bos>",
    "tts_eos_token_id": "<tts_text_eod>",
}

# What a byte-level BPE is called: in the release, and by transformers 5, which saves tokenizer.json alone.
_CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast")
# What transformers' configurations have for every model, whatever it is; in `talker_config` they name no codec token.
_GENERIC_IDS = {
    f"{name}_token_id" for name in ("bos", "eos", "pad", "sep", "cls", "unk", "mask", "decoder_start", "forced_bos")
} | {"forced_eos_token_id"}

MAX_ROWS = 1 << 20


class TokenType(IntEnum):
    """llama.cpp's kinds of tokens (include/llama.h, enum llama_token_type)."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokenizer."""

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    """Pairs, "left right", the most important first."""
    add_bos_token: bool | None
    """As tokenizer_config.json has it; None if it has none."""
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Added:
    """A token outside the BPE vocabulary."""

    id: int
    token: str
    special: bool

    @property
    def type(self) -> TokenType:
        # Some of Qwen's control tokens are not marked special; llama.cpp goes by the looks.
        control = self.special or (self.token.startswith("<|") and self.token.endswith("|>"))
        return TokenType.CONTROL if control else TokenType.USER_DEFINED


def read_tokenizer(folder: Path, n_rows: int) -> Tokenizer:
    """The text tokenizer, its list filled up to the `n_rows` of the text embedding with unused tokens.

    Reads tokenizer.json, as transformers does where there is one: vocab.json and merges.txt in the same folder may be
    older. Else these two, and tokenizer_config.json for the tokens added to them. Types are as in llama.cpp's converter
    (conversion/base.py, get_vocab_base). Raises CheckpointError.
    """
    if n_rows > MAX_ROWS:
        raise CheckpointError(f"{folder}: a text embedding of {n_rows} rows; the most that is supported is {MAX_ROWS}")
    settings = Section.read(folder / "tokenizer_config.json")
    if settings.values.get("tokenizer_class", _CLASSES[0]) not in _CLASSES:
        raise settings.error("tokenizer_class", f"is {settings.values['tokenizer_class']!r}, not {_CLASSES[0]!r}")
    if (folder / "tokenizer.json").is_file():
        names = ["tokenizer.json", "tokenizer_config.json"]
        whole = Section.read(folder / "tokenizer.json")
        model = whole.section("model")
        model.expect("type", "BPE")
        vocabulary = model.section("vocab")
        merges, added = _merges_of_json(model), _added_of_json(whole)
    elif (folder / "vocab.json").is_file():
        names = ["vocab.json", "merges.txt", "tokenizer_config.json"]
        vocabulary = Section.read(folder / "vocab.json")
        merges, added = _merges_of_text(folder / "merges.txt"), _added_of_settings(settings)
    else:
        raise CheckpointError(
            f"{folder}: there is neither tokenizer.json nor vocab.json",
            hint="copy the tokenizer files from the checkpoint it was trained from",
        )

    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    types = [TokenType.UNUSED] * n_rows
    typed = [(i, token, TokenType.NORMAL) for token, i in _ids(vocabulary).items()]
    typed += [(each.id, each.token, each.type) for each in added]
    for i, token, token_type in typed:
        if i >= n_rows:
            raise CheckpointError(f"{folder / names[0]}: token {token!r} has id {i}, the text embedding {n_rows} rows")
        tokens[i], types[i] = token, token_type
    add_bos = settings.values.get("add_bos_token")
    files = tuple(folder / name for name in names)
    return Tokenizer(tokens, types, merges, add_bos if isinstance(add_bos, bool) else None, files)


def codec_tokens(talker: Section) -> list[str]:
    """Names of the codec's tokens, from the `*_id` keys of `talker_config`. Where two keys give a row two names, the
    one that starts with `codec_` stays: llama.cpp's pipeline asks for `<|codec_pad|>`."""
    names = [f"<|codec_{i}|>" for i in range(CODEC_VOCABULARY)]
    keys = (key for key in talker.values if key.endswith("_id") and key not in _GENERIC_IDS)
    for key in sorted(keys, key=lambda key: key.startswith("codec_")):
        prefix, value = key.removesuffix("_id"), talker.values[key]
        if isinstance(value, Mapping):
            ids = {f"<|{prefix}_{name}|>": i for name, i in talker.ids(key).items()}
        elif type(value) is int:
            ids = {f"<|{prefix}|>": value}
        else:
            continue  # null: this model has no such token
        for name, i in ids.items():
            if not 0 <= i < CODEC_VOCABULARY:
                raise talker.error(key, f"contains {i}, the codec's tokens are 0..{CODEC_VOCABULARY - 1}")
            names[i] = name
    return names


def require_template_tokens(model: Section, tokenizer: Tokenizer) -> None:
    """Raises CheckpointError unless the prompt's tokens in config.json are where the tokenizer has them."""
    for key, token in TEMPLATE_TOKENS.items():
        i = model.integer(key)
        found = tokenizer.tokens[i] if i < len(tokenizer.tokens) else None
        if found != token:
            raise model.error(key, f"is {i}, which is {found!r} in the tokenizer, not {token!r}")


def _ids(vocabulary: Section) -> dict[str, int]:
    ids: dict[str, int] = {}
    for token, i in vocabulary.values.items():
        if type(i) is not int or i < 0:
            raise vocabulary.error(repr(token), f"has the id {i!r}")
        ids[token] = i
    return ids


def _added_of_settings(settings: Section) -> list[_Added]:
    """`added_tokens_decoder` of tokenizer_config.json: id -> token."""
    decoder = settings.section("added_tokens_decoder")
    added = []
    for key in decoder.values:
        if not key.isdecimal():
            raise decoder.error(repr(key), "is not a token id")
        entry = decoder.section(key)
        added.append(_Added(int(key), entry.text("content"), entry.values.get("special") is True))
    return added


def _added_of_json(whole: Section) -> list[_Added]:
    """`added_tokens` of tokenizer.json: a list."""
    entries = whole.objects("added_tokens")
    return [_Added(e.integer("id"), e.text("content"), e.values.get("special") is True) for e in entries]


def _merges_of_text(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    merges = [line for line in lines if line and not line.startswith("#version")]
    return [_merge(line.split(" "), path) for line in merges]


def _merges_of_json(model: Section) -> list[str]:
    """Pairs as lists (newer) or as strings with a space between (older)."""
    pairs = model.values.get("merges")
    if not isinstance(pairs, list):
        raise model.error("merges", "is not a list")
    return [_merge(pair.split(" ") if isinstance(pair, str) else pair, model.where) for pair in pairs]


def _merge(pair: object, where: object) -> str:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise CheckpointError(f"{where}: {pair!r} is not a merge, a pair of tokens")
    return " ".join(pair)
