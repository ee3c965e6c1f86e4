"""A batch as a file: CSV for spreadsheets, JSON for programs."""

from __future__ import annotations

import csv
import io
import json

from ui.batch import Batch, Row

# A spreadsheet takes a cell that begins so for a formula, and may run it (OWASP, CSV injection).
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
_UNASKED = "It was not asked about: the batch ended before."


def csv_of(batch: Batch) -> bytes:
    """All rows, UTF-8 with a mark that spreadsheets know it by: the photo, three columns a target, the error.

    `TARGET` is what is predicted, several with `|` between them, and empty where it is none of these;
    `TARGET_probability` is of the likeliest label, 0..1.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    targets = batch.target_names
    heading = [name for target in targets for name in (target, f"{target}_probability", f"{target}_none_of_these")]
    writer.writerow([safe_cell(cell) for cell in ("photo", *heading, "error")])
    for row in batch.rows:
        writer.writerow([safe_cell(cell) for cell in _cells(row, targets)])
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def json_of(batch: Batch) -> bytes:
    """All rows, what was skipped, and what was asked."""
    content = {
        "targets": batch.target_names,
        "head": batch.head,
        "gallery_version": batch.gallery_version,
        "photos": [_object(row) for row in batch.rows],
        "skipped": [
            {"reason": one.reason, "files": one.count, "examples": one.names} for one in batch.skipped.values()
        ],
    }
    return json.dumps(content, ensure_ascii=False).encode()


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet runs."""
    return "'" + text if text.startswith(_FORMULAS) else text


def _cells(row: Row, targets: list[str]) -> list[str]:
    cells = [row.name]
    for target in targets:
        answer = row.answers.get(target)
        if answer is None:
            cells += ["", "", ""]
        else:
            cells += ["|".join(answer.labels), f"{answer.probability:.4f}", "true" if answer.none_of_these else "false"]
    return [*cells, _error_of(row) or ""]


def _object(row: Row) -> dict[str, object]:
    predictions = [
        {
            "target": target,
            "head": answer.head,
            "predicted": answer.labels,
            "none_of_these": answer.none_of_these,
            "likeliest": answer.likeliest,
            "probability": answer.probability,
        }
        for target, answer in row.answers.items()
    ]
    return {"photo": row.name, "error": _error_of(row), "predictions": predictions}


def _error_of(row: Row) -> str | None:
    return row.error if row.is_done else _UNASKED
