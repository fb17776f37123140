"""Longest common subsequences of token lists, on the bits of whole numbers: much faster than a table in Python.

The recurrence is Hyyrö's (2004, "Bit-parallel LCS-length computation revisited"): bit j of a row is 0 where the length
grows from column j to j + 1, so that the length up to a column is a count of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Candidate:
    """A token list that others are compared with, indexed once."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tokens
        self.all_ones = (1 << len(tokens)) - 1
        places: dict[str, int] = {}
        for column, token in enumerate(tokens):
            places[token] = places.get(token, 0) | (1 << column)
        self.places: Mapping[str, int] = places

    def length(self, reference: Sequence[str]) -> int:
        """Length of the longest subsequence that `reference` and this list share."""
        row = self.all_ones
        for token in reference:
            row = self._next_row(row, token)
        return (row ^ self.all_ones).bit_count()

    def matched(self, reference: Sequence[str]) -> list[int]:
        """Places in `reference` of one longest common subsequence, last first.

        If there are several it is rouge-score's: ties go back along the reference, and ROUGE-Lsum depends on that.
        """
        if self.places.keys().isdisjoint(reference):
            return []
        rows = [self.all_ones]
        for token in reference:
            rows.append(self._next_row(rows[-1], token))
        # The length left changes only at a match: ties between going back in the reference and in the candidate
        # are decided by one bit, and rarely by a count.
        left = (rows[-1] ^ self.all_ones).bit_count()
        found: list[int] = []
        i, j = len(reference), len(self.tokens)
        while left:
            if reference[i - 1] == self.tokens[j - 1]:
                found.append(i - 1)
                i, j, left = i - 1, j - 1, left - 1
            elif not (rows[i] >> (j - 1)) & 1 or _length_at(rows[i - 1], j) == left:
                i -= 1
            else:
                j -= 1
        return found

    def _next_row(self, row: int, token: str) -> int:
        places = self.places.get(token)
        if places is None:
            return row
        matches = row & places
        return ((row + matches) | (row - matches)) & self.all_ones


def _length_at(row: int, column: int) -> int:
    return column - (row & ((1 << column) - 1)).bit_count()
