"""Stereo frames a second of the rendered street on one thread, scene and truth included, nothing written.

Run: NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/render.py
Prints processor time, which other programs on the machine disturb less than wall time does.
"""

from __future__ import annotations

import platform
import statistics
import time

from cupola.data.synthetic import street

SIZES = ((128, 256), (192, 384), (376, 1241), (512, 1024))
SEQUENCES, FRAMES, SEED = 6, 4, 7


def _rate(height: int, width: int) -> tuple[float, float, float]:
    """Frames a second over the sequences: median, worst, best."""
    rates = []
    for sequence in range(SEQUENCES):
        start = time.process_time()
        for _ in street(SEED, sequence, FRAMES, height, width):
            pass
        rates.append(FRAMES / (time.process_time() - start))
    return statistics.median(rates), min(rates), max(rates)


def main() -> None:
    """Compiles, then prints one line a size."""
    start = time.process_time()
    next(street(SEED, 0, 1, 32, 64))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"first frame (compiling, unless cached): {time.process_time() - start:.1f} s")
    print(f"{'size':>12}{'frames/s':>12}{'worst':>8}{'best':>8}")
    for height, width in SIZES:
        median, worst, best = _rate(height, width)
        print(f"{height:>5} x {width:<5}{median:>11.1f}{worst:>8.1f}{best:>8.1f}")


if __name__ == "__main__":
    main()
