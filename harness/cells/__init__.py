"""What is measured, as values: a cell is one task on one backbone. A sweep imports from here alone."""

from harness.cells.cell import Cell, Task, distinct, in_order
from harness.cells.preprocessing import Preprocessing
from harness.cells.recipe import FOLDER, MICRO, Recipe
from harness.cells.runtime import Runtime
from harness.cells.source import DataSource
from harness.cells.tasks import Costs, Evaluate, Metrics, Speed, Train
from harness.cells.weights import RunWeights, Weights

__all__ = [
    "FOLDER",
    "MICRO",
    "Cell",
    "Costs",
    "DataSource",
    "Evaluate",
    "Metrics",
    "Preprocessing",
    "Recipe",
    "RunWeights",
    "Runtime",
    "Speed",
    "Task",
    "Train",
    "Weights",
    "distinct",
    "in_order",
]
