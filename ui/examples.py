"""Examples: items of the catalog to begin with."""

from __future__ import annotations

from service.client import Client

_MOST = 8


def find_examples(client: Client) -> list[tuple[str, str]]:
    """Up to eight items that differ: of each the label it stands for, and its item_id. None where the gallery is empty.

    Args:
        client: Of the service.

    Raises:
        ServiceError: It does not answer.
    """
    targets = client.catalog().targets
    # The first target with a choice is the one that the catalog's owner named first.
    target = next((name for name, labels in targets.items() if len(labels) > 1), None)
    if target is None:
        return [(item.item_id, item.item_id) for item in client.items(limit=_MOST).items]
    labels = sorted(targets[target], key=lambda label: -targets[target][label])[:_MOST]
    found: dict[str, str] = {}
    for label in labels:
        for item in client.items(where={target: label}, limit=-(-_MOST // len(labels))).items:
            found.setdefault(item.item_id, label)
    return [(label, item_id) for item_id, label in found.items()][:_MOST]
