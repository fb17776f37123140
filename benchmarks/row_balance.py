"""How evenly the rows of a step are shared over processes: a simulation on MedQuAD's lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from medtune.data.medquad_lengths import ROW_TOKENS
from medtune.runtime.launch import balanced_shares

# Rows are cut there, as `training.max_length` does.
LONGEST_ROW = 1024
PROCESSES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
ROWS_A_PROCESS = (1, 2, 4, 8, 16, 32, 64)
# At least so many rows, and so many steps, are shared out for a figure.
_SIMULATED_ROWS, _SIMULATED_STEPS = 2048, 1


def draw_lengths(rows: int, generator: np.random.Generator) -> list[int]:
    """Tokens of so many rows of MedQuAD, each drawn from the profile that the package ships."""
    places = np.linspace(0, 1, len(ROW_TOKENS))
    lengths = np.interp(generator.random(rows), places, ROW_TOKENS).round().astype(int)
    return [min(length, LONGEST_ROW) for length in lengths.tolist()]


def idle_share(lengths: Sequence[int], processes: int) -> float:
    """The share of their time in a step for which processes wait for the one with the most tokens; the mean of all."""
    loads = [sum(lengths[i] for i in share) for share in balanced_shares(lengths, processes)]
    return 1 - sum(loads) / (processes * max(loads))


@cache
def simulate_idle(processes: int, rows: int) -> float:
    """`idle_share` over steps of so many rows a process."""
    generator = np.random.default_rng([processes, rows])
    steps = max(_SIMULATED_STEPS, _SIMULATED_ROWS // (processes * rows))
    shares = [idle_share(draw_lengths(processes * rows, generator), processes) for _ in range(steps)]
    return float(np.mean(shares))


def balance_table() -> Iterator[str]:
    """Idle shares for every number of processes and of rows."""
    yield "| processes | " + " | ".join(f"{rows} rows" if rows > 1 else "1 row" for rows in ROWS_A_PROCESS) + " |"
    yield "| --- " * (1 + len(ROWS_A_PROCESS)) + "|"
    for processes in PROCESSES:
        shares = (f"{100 * simulate_idle(processes, rows):.1f} %" for rows in ROWS_A_PROCESS)
        yield f"| {processes} | " + " | ".join(shares) + " |"
