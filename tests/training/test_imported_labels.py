"""The network learns from imported labels as it does from the store that they came from."""

import numpy as np
import pytest
from training_doubles import write_store

from cupola.pseudo_labels import LabelStore, export_labels, import_labels
from cupola.training import BootstrapSettings, SelfLabelSettings, train
from cupola.training.data import read_sample


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of stage 1, and the same labels after the way through published files."""
    root = tmp_path_factory.mktemp("street")
    labels = write_store(root)
    export_labels(labels, out=root / "published", workers=1)
    import_labels(root / "published", data=root / "data", out=root / "imported", workers=1)
    return labels, root / "imported"


def test_samples_are_the_same(stores):
    ours, imported = map(LabelStore.open, stores)
    assert len(ours.things) == len(imported.things) == 1
    assert imported.stuff == ours.stuff
    for key in ours.keys:
        sample, other = read_sample(ours, key), read_sample(imported, key)
        np.testing.assert_array_equal(sample.image, other.image)
        np.testing.assert_array_equal(sample.codes, other.codes)
        np.testing.assert_array_equal(sample.classes, other.classes)


def test_two_steps(stores, tmp_path):
    settings = BootstrapSettings(batch=1, self_labels=SelfLabelSettings(at=()))
    result = train(stores[1], out=tmp_path / "net", network="tiny", steps=2, settings=settings)
    assert result.frames == result.objects == 4
    assert all(np.isfinite(list(result.losses.values())))
