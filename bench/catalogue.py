"""The catalogue of model variants (`models.toml`): shapes, licences and the rules each family wants to be asked by."""

from msgspec import Struct

from bench.config import Deployment


class Recipe(Struct, frozen=True, kw_only=True):
    """How a family wants to be asked. The default is a plain instruct model, greedy."""

    reasoning: bool = False
    system_prompt: bool = True
    """False: instructions go into the user's turn."""
    temperature: float = 0.0
    top_p: float = 1.0
    prefill: str = ""
    """Opens the reply."""
    samples_per_item: int = 1
    max_tokens: int | None = None
    """Least room for an answer with its thinking; None: what the task says."""


def recipe(deployment: Deployment) -> Recipe:
    """The rules of the deployment's family."""
    return Recipe()
