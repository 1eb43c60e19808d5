"""What a terminal shows of the text that is written to it."""

from __future__ import annotations

import re

_PIECE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)", re.DOTALL)


class Screen:
    """The lines of a terminal of endless length; rich's control codes and no others are known.

    Attributes:
        lines: what is seen, without blanks at the right.
        row, column: of the cursor.
        cursor_is_shown: whether it is.
    """

    def __init__(self, text: str) -> None:
        self._rows: list[str] = [""]
        self.row = self.column = 0
        self.cursor_is_shown = True
        end = 0
        for match in _PIECE.finditer(text):
            assert match.start() == end, f"unknown control code: {text[end : match.start()]!r}"
            end = match.end()
            self._take(*match.groups())
        assert end == len(text)

    @property
    def lines(self) -> list[str]:
        rows = [row.rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _take(self, private: str, number: str, code: str, cr: str, lf: str, text: str) -> None:
        if cr or lf:
            self.column = 0  # a terminal's driver returns at the end of a line
            self.row += bool(lf)
            if self.row == len(self._rows):
                self._rows.append("")
        elif text:
            row = self._rows[self.row].ljust(self.column)
            end = self.column + len(text)
            self._rows[self.row] = row[: self.column] + text + row[end:]
            self.column = end
        elif code == "A":
            self.row = max(0, self.row - int(number or 1))
        elif code == "K":
            assert number == "2"
            self._rows[self.row] = ""
        elif private:
            assert (number, code in "lh") == ("25", True)
            self.cursor_is_shown = code == "h"
        else:
            assert code == "m"
