"""`cupola finetune`."""

from __future__ import annotations

from cupola.finetuning import FinetuneResult, finetune

command = finetune


def show(result: FinetuneResult) -> None:
    """Prints mean and spread of each size, and where the networks are."""
    if result.before is not None:
        print(f"before: PQ {100 * result.before.pq:.1f} %")
    for images, pq in result.pq.items():
        count = sum(one.images == images for one in result.networks)
        spread = f" +- {100 * pq.deviation:.1f} over {count} subsets" if count > 1 else ""
        print(f"{images} images: PQ {100 * pq.mean:.1f} %{spread}")
    for one in result.networks:
        print(f"network: {one.path}")
    if result.report is not None:
        print(f"report: {result.report}")
