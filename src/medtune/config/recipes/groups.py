"""Shipped recipes by the machine that they are for, as a newcomer looks for one, and those for other rows."""

from medtune.config.recipes import shipped_recipes

OTHER_SETS = "other medical sets"
GROUPS = {
    "on any computer": ("demo",),
    "on a laptop": ("smollm2-135m", "qwen3-0.6b"),
    "on a free T4": (
        "llama3.2-1b", "gemma3-1b", "smollm3-3b", "llama3.2-3b", "phi4-mini", "qwen3-4b", "mistral-7b", "qwen3-8b",
        "llama3-8b-t4",
    ),
    "on more": ("llama3-8b-2xt4", "llama3-8b-24gb", "llama3-8b-80gb", "llama3-70b-2x24gb"),
    OTHER_SETS: ("medquad-lavita", "icliniq", "chatdoctor", "pubmedqa", "medmcqa"),
}  # fmt: skip
_GATED = "(gated)"
_ABOUT_GATED = "gated: accept the licence on the model's page on the Hub, then `hf auth login`"


def recipe_lines() -> list[str]:
    """Every recipe with its description, group by group."""
    found = shipped_recipes()
    width = max(map(len, found))
    lines = []
    for title, names in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<{width}}  {found[name]}" for name in names)]
    return [*lines, _ABOUT_GATED]


def brief_lines() -> list[str]:
    """The names of each group in a line, gated ones with an asterisk."""
    found = shipped_recipes()
    width = max(map(len, GROUPS))
    lines = [
        f"{title:<{width}}  {', '.join(f'{name}*' if _GATED in found[name] else name for name in names)}"
        for title, names in GROUPS.items()
    ]
    return [*lines, f"* {_ABOUT_GATED}"]
