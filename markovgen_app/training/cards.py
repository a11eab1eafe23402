"""The model card of a trained random field: what it is, what made it, and the licence that travels with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import is_hub_id
from ..ladder import part_names
from ..models.amused import AmusedTransformer
from ..models.mrf import MarkovRandomField

_RAIL = """\
## Use restrictions

This field was trained on the outputs of a model under the CreativeML Open RAIL++-M licence, whose use restrictions
(its Attachment A) hold for every derivative and have to be passed on. You agree not to use this model or derivatives
of it:

- in any way that violates any applicable national, federal, state, local or international law or regulation;
- for the purpose of exploiting, harming or attempting to exploit or harm minors in any way;
- to generate or disseminate verifiably false information and/or content with the purpose of harming others;
- to generate or disseminate personal identifiable information that can be used to harm an individual;
- to defame, disparage or otherwise harass others;
- for fully automated decision making that adversely impacts an individual's legal rights or otherwise creates or
  modifies a binding, enforceable obligation;
- for any use intended to or which has the effect of discriminating against or harming individuals or groups based on
  online or offline social behavior or known or predicted personal or personality characteristics;
- to exploit any of the vulnerabilities of a specific group of persons based on their age, social, physical or mental
  characteristics, in order to materially distort the behavior of a person pertaining to that group in a manner that
  causes or is likely to cause that person or another person physical or psychological harm;
- for any use intended to or which has the effect of discriminating against individuals or groups based on legally
  protected characteristics or categories;
- to provide medical advice and medical results interpretation;
- to generate or disseminate information for the purpose to be used for administration of justice, law enforcement,
  immigration or asylum processes, such as predicting an individual will commit fraud/crime commitment (e.g. by text
  profiling, drawing causal relationships between assertions made in documents, indiscriminate and
  arbitrarily-targeted use).
"""
_OF_THE_BASE = """\
```
markovgen generate "a robot" --method markovgen --model {model} --mrf FOLDER
```

Copied into the folder `mrf` beside the checkpoint's other parts, it is found without `--mrf`.
"""
_ABOVE_THE_BASE = """\
Copied into the folder `{part}` beside the checkpoint's other parts, it is found.
"""


def write_card(
    folder: Path, field: MarkovRandomField, backbone: object, settings: Mapping[str, Any], report: Mapping[str, float]
) -> None:
    """Write README.md beside a field's weights.

    Args:
        backbone: the transformer that it was trained for; aMUSEd's brings its licence along.
        settings: of the training run, plain values; the stage is the base where they name none. Of a path only its last
            part is published.
        report: nats an undecided token on held-out pictures.
    """
    rail = isinstance(backbone, AmusedTransformer)
    height, width = field.grid
    settings = {name: _published(value) for name, value in settings.items()}
    model, stage = settings["model"], settings.get("stage", 0)
    licence = "openrail++" if rail else "apache-2.0"
    base = f"base_model: {model}\n" if rail and is_hub_id(model) else ""
    use = _OF_THE_BASE.format(model=model) if stage == 0 else _ABOVE_THE_BASE.format(part=part_names(stage)[1])
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in report.items())
    text = f"""\
---
license: {licence}
{base}library_name: markovgen-app
tags: [text-to-image, markov-random-field]
---

# A Markov random field over image tokens

A {field.config.parametrisation} field over {height} × {width} tokens of {field.config.codebook_size} codes, for the
checkpoint `{model}`. After an early exit of parallel decoding it settles all tokens that are left, as
MarkovGen ([arXiv 2308.10997](https://arxiv.org/abs/2308.10997)) does.

{use}
Cross-entropy of undecided tokens of held-out pictures, in nats a token (plain: the backbone alone):

| answer of | nats |
|---|---|
{rows}

Trained with:

```json
{json.dumps(dict(settings), indent=1, ensure_ascii=False)}
```
"""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text + (f"\n{_RAIL}" if rail else ""), encoding="utf-8")


def _published(value: Any) -> Any:
    """A path's last part, as the rest is about the trainer's machine; a hub's id and any other value as it is."""
    if not isinstance(value, str) or (is_hub_id(value) and not Path(value).exists()):
        return value
    return Path(value).name
