"""The About tab: what this is, how a picture comes to be, what the model knows."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from markovgen_app.results import FOLDER, HEAD, Results, load_results
from markovgen_app.runtime import Runtime

from .examples import STEPS
from .stage import data_url

_LEDE = """
<p>A picture here is a grid of tokens, each standing for a small patch, as in
<a href="https://arxiv.org/abs/2301.00704">Muse</a>.
A transformer that has read your words guesses every missing token at once, keeps a few guesses, far from each other at
first, and looks again: a few dozen steps lead from an empty grid to a picture.
Most of those steps settle how neighbouring patches fit together, and
<a href="https://arxiv.org/abs/2308.10997">MarkovGen</a> (CVPR 2024) found that a small learned Markov random field can
settle that in one go, so that the transformer may stop early.
This project builds all of it from nothing, in the open: the world of pictures, the models, the training, the
measurements.</p>
"""
_WORLD = (
    "It has seen a picture-book world and nothing else: emoji figures, drawn backgrounds, a handful of styles. A "
    "frozen language model reads your words, so a word near one it knows often works too."
)
_OTHER_WORLD = "These weights do not list the words they know. A frozen language model reads yours."
_LICENCE = "Code and weights: Apache-2.0. The figures are drawn from Noto Color Emoji (SIL Open Font License 1.1)."
_OTHER_LICENCE = "Code: Apache-2.0. The weights have a licence of their own, with use restrictions where it says so."
_KEPT = (
    "Pictures and masks that you bring are deleted from it at most three hours after you close the page, pictures that "
    "a program asks for at most three hours after they were made. What you make on this page stays in your browser: "
    "the newest pictures, a megabyte or so of them, until you close its tab, all others until you reload it. Download "
    "what you want to keep."
)
_LINKS = """
<ul>
<li><a href="https://arxiv.org/abs/2308.10997">MarkovGen: Structured Prediction for Efficient Text-to-Image
Generation</a>, Jayasumana et al., CVPR 2024</li>
<li><a href="https://arxiv.org/abs/2301.00704">Muse: Text-To-Image Generation via Masked Generative Transformers</a>,
Chang et al., ICML 2023</li>
<li><a href="https://arxiv.org/abs/2202.04200">MaskGIT: Masked Generative Image Transformer</a>,
Chang et al., CVPR 2022</li>
</ul>
"""


def about_tab(runtime: Runtime, examples: Path) -> None:
    """Lays out the tab; call inside `gr.Tab`."""
    gr.HTML(about_html(runtime, examples), apply_default_css=False, elem_id="about")


def about_html(runtime: Runtime, examples: Path, results: Path = FOLDER) -> str:
    """The whole tab; the strip of steps and the measured table are left out where they have not been made.

    Only weights that were trained on this project's own world list its nouns; of others less can be said.
    """
    knows = runtime.pipeline.vocabulary
    counts = {"things": knows.nouns, "backgrounds": knows.backgrounds, "styles": knows.styles, "colours": knows.colours}
    listed = "".join(f"<div><dt>{name}</dt><dd>{len(words)}</dd></div>" for name, words in counts.items() if words)
    world, licence = (_WORLD, _LICENCE) if knows.nouns else (_OTHER_WORLD, _OTHER_LICENCE)
    sizes = " or ".join(f"{side} × {side}" for side in runtime.pipeline.sizes)
    measured = load_results(results)
    return (
        f'<article class="mg-about"><h2>Pictures, a few tokens at a time</h2>{_LEDE}{_strip(examples / STEPS)}'
        f"<h2>What this model knows</h2>{f'<dl>{listed}</dl>' if listed else ''}"
        f"<p>{world} Its pictures are {sizes} pixels; the page enlarges them smoothly, and the PNG you download is the "
        "original, with its settings inside unless you say otherwise.</p>"
        f"{_table(measured) if measured else ''}"
        f"<h2>Where it runs</h2><p>{escape(runtime.describe())}. Nothing you type leaves this server. {_KEPT}</p>"
        f"<h2>Licence and sources</h2><p>{licence}</p>{_LINKS}</article>"
    )


def _strip(path: Path) -> str:
    if not path.exists():
        return ""
    return (
        f'<figure><img src="{data_url(path.read_bytes())}" alt="Six moments of one picture, from a few scattered '
        'patches to the whole"><figcaption>One picture, first tokens to last. Gaps are tokens not decided yet.'
        "</figcaption></figure>"
    )


def _table(results: Results) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    rows = "".join(
        f'<tr><th scope="row">{escape(name).replace(":", ":<wbr>")}</th>{"".join(map(_cell, cells))}</tr>'
        for name, *cells in results.rows
    )
    return (
        "<h2>How good it is</h2>"
        '<div class="mg-table" tabindex="0" role="region" aria-label="Measured quality of each method">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>{results.note} With the embedded weights, measured by <code>{escape(results.command)}</code>.</p>"
    )


def _cell(text: str) -> str:
    """A cell whose interval, if there is one, stands below its value."""
    value, _, interval = text.removesuffix(")").partition(" (")
    return f"<td>{value}{f'<small>{interval}</small>' if interval else ''}</td>"
