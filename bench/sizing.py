"""What a cell should need and how fast it could be, before anything is loaded. Pure; predicted, never measured."""

from typing import TYPE_CHECKING

from bench.config import BackendSettings
from bench.models import Weights
from hardware import Host
from results.records import Prediction

if TYPE_CHECKING:
    from bench.plan import CellPlan


def predict(cell: "CellPlan", settings: BackendSettings, weights: Weights | None, host: Host) -> Prediction:
    """Memory, verdict, ceiling and rough duration of a cell."""
    return Prediction()
