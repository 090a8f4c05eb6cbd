"""Figures of what was measured, as Vega-Lite specifications: for papers, for the page, for tests.

* `accuracy`: accuracy against what it costs, with the Pareto front (`fronts`).
* `forest`: differences from a baseline, with intervals.
* `ranks`: mean ranks over backbones, with the critical difference.
* `ablation`, `grids`: accuracy over one option and over two, and attentions by backbones.
* `reproduced`: the figures of a paper, with its points and ours.
* `breakdown`: what multiply-adds are spent on.
* `maps`: attention maps over an image; `queries`: the weights of several queries.
* `analysis`: what blocks are like, block by block.
* `scaling`: time, ratio and memory over the number of tokens.
* `curves`: accuracy and loss after each epoch.
* `points`, `panels`: what is drawn with which interval, and what may be compared.
* `styles`, `labels`, `marks`: how each attention looks, where texts are.
* `figure`, `rendering`: what a figure is; as SVG, PDF, PNG, HTML or JSON, without a browser; `reading`: from JSON.
"""

from results.figures.ablation import ablation
from results.figures.accuracy import AXES, accuracy
from results.figures.analysis import analysis
from results.figures.breakdown import breakdown
from results.figures.curves import curves
from results.figures.figure import VEGA_LITE, Figure
from results.figures.forest import forest
from results.figures.grids import grid
from results.figures.maps import Seen, maps
from results.figures.points import Which
from results.figures.queries import queries
from results.figures.ranks import ranks
from results.figures.reading import Given, read_figure
from results.figures.rendering import ENDINGS, check_ending, render, rendered
from results.figures.reproduced import ablation_figure, cost_figure, time_figure
from results.figures.scaling import scaling
from results.figures.styles import Style, styles

__all__ = [
    "AXES",
    "ENDINGS",
    "VEGA_LITE",
    "Figure",
    "Given",
    "Seen",
    "Style",
    "Which",
    "ablation",
    "ablation_figure",
    "accuracy",
    "analysis",
    "breakdown",
    "check_ending",
    "cost_figure",
    "curves",
    "forest",
    "grid",
    "maps",
    "queries",
    "ranks",
    "read_figure",
    "render",
    "rendered",
    "scaling",
    "styles",
    "time_figure",
]
