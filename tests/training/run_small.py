"""A run of a few steps for tests, alone or as one of several processes: run_small.py LABELS OUT SETTINGS(JSON)."""

import json
import sys
import time
from pathlib import Path

import torch

from cupola.io import write_over
from cupola.models import PanopticNetwork
from cupola.runs import state
from cupola.training import BootstrapSettings, DiscoverySettings, OptimizerSettings, SelfLabelSettings, train
from cupola.training.bootstrap_task import BootstrapTask


def main() -> None:
    labels, out, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    if options.get("slow_states"):  # long enough to be killed in

        def slowly(path: Path, pieces: list[bytes | memoryview], *, lasting: bool) -> None:
            if path.exists():  # a new file appears whole
                half = pieces[: len(pieces) // 2]
                write_over(path, [*half, path.read_bytes()[sum(map(len, half)) :]])
                time.sleep(0.1)
            write_over(path, pieces, lasting=lasting)

        state.write_over = slowly
    if options.get("frozen"):

        def frozen(self: BootstrapTask, network: PanopticNetwork) -> None:
            network.train()
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()

        BootstrapTask.train_mode = frozen
    settings = BootstrapSettings(
        batch=options.get("batch", 4),
        accumulate=options.get("accumulate", 1),
        precision=options.get("precision", "float32"),
        saving_share=options.get("saving_share", 1e9),
        optimizer=OptimizerSettings(learning_rate=options.get("rate", 1e-3)),
        self_labels=SelfLabelSettings(at=(0.5,), score=0.26),
        discoveries=DiscoverySettings(start=2, every=2, frames=4, keep=2, score=0.26),
    )
    train(labels, out=out, network="tiny", steps=options.get("steps", 4), settings=settings, seed=1, device="cpu")


if __name__ == "__main__":
    main()
