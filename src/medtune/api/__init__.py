"""The public interface: what the commands do, as functions. `import medtune` gives all of it by name.

Functions raise MedtuneError for what the caller can fix. Those that work in a run take `progress`, a function that
receives `Progress` events in place of the bars.
"""

from medtune.api.calls import doctor, evaluate, load_run, plan, prepare, run, train
from medtune.api.exports import export, measure
from medtune.api.runs import Run
from medtune.api.scores import compare, score
from medtune.api.servers import chat, serve
from medtune.api.working import RunInterrupted, spelled_as_calls
from medtune.config import recipes
from medtune.config.schema import Config
from medtune.errors import MedtuneError
from medtune.records import Comparison, Prediction, Score
from medtune.runtime.progress import Progress

__all__ = [
    "Comparison", "Config", "MedtuneError", "Prediction", "Progress", "Run", "RunInterrupted", "Score", "chat",
    "compare", "doctor", "evaluate", "export", "load_recipe", "load_run", "measure", "plan", "prepare", "run", "score",
    "serve", "train",
]  # fmt: skip

load_recipe = spelled_as_calls()(recipes.load_recipe)
