import json

import pytest

from cupola.errors import CheckpointError, ConfigError
from cupola.prediction import class_system
from cupola.taxonomy import CITYSCAPES_19

CARD = {"things": [5, 2], "stuff": [0, 3, 4]}
GREY = (128, 128, 128)
COLORS = dict(zip(CITYSCAPES_19.names, CITYSCAPES_19.colors, strict=True))


def result(**changes):
    """A result.json: 0 and 3 are road, 5 is car, 2 and 4 stand for nothing; 1 does not occur."""
    road, car = CITYSCAPES_19.names.index("road"), CITYSCAPES_19.names.index("car")
    content = {
        "classes": list(CITYSCAPES_19.names),
        "matched": {"assignment": [road, -1, -1, road, -1, car]},
        "pseudo_is_thing": [False, False, True, False, False, True],
    }
    return json.dumps(content | changes)


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_without_names_classes_have_numbers_and_colours_of_their_own():
    classes = class_system(CARD)
    assert [classes.names[c] for c in (0, 5)] == ["class 0", "class 5"]
    assert len(set(classes.colors)) == 6
    assert [(c.id, c.is_thing) for c in classes.categories()] == [
        (0, False),
        (2, True),
        (3, False),
        (4, False),
        (5, True),
    ]


def test_a_matching_gives_names_and_colours(tmp_path):
    classes = class_system(CARD, written(tmp_path, "result.json", result()))
    assert [classes.names[c] for c in (0, 2, 3, 4, 5)] == ["road", "class 2", "road", "class 4", "car"]
    assert classes.colors[0] == classes.colors[3] == COLORS["road"]
    assert classes.colors[5] == COLORS["car"]
    assert classes.colors[2] == classes.colors[4] == GREY
    # Things first, each name once, and only what is there.
    assert classes.legend() == [
        ("class 2", GREY), ("car", COLORS["car"]), ("road", COLORS["road"]), ("class 4", GREY),
    ]  # fmt: skip
    assert classes.legend({0, 3, 5}) == [("car", COLORS["car"]), ("road", COLORS["road"])]


@pytest.mark.parametrize(
    ("name", "text"), [("names.yaml", "5: car\n0: Straße\n"), ("names.json", '{"5": "car", "0": "Straße"}')]
)
def test_a_file_of_names(tmp_path, name, text):
    classes = class_system(CARD, written(tmp_path, name, text))
    assert (classes.names[5], classes.names[0], classes.names[3]) == ("car", "Straße", "class 3")
    assert classes.colors[5] == COLORS["car"]
    assert GREY not in (classes.colors[0], classes.colors[5])
    assert classes.colors[3] == GREY


def test_the_card_names_its_classes_unless_a_file_does(tmp_path):
    card = CARD | {"class_names": {"5": "bus"}}
    assert class_system(card).names[5] == "bus"
    assert class_system(card, written(tmp_path, "n.yaml", "5: car")).names[5] == "car"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("n.yaml", "7: car", "names class 7, which the network does not have; it has 0, 2, 3, 4, 5"),
        ("n.yaml", "car", "does not map class ids to names"),
        ("n.yaml", "car: 5", "does not map class ids to names"),
        ("n.yaml", "5: [", "is neither YAML nor JSON"),
        ("n.json", "{", "is neither YAML nor JSON"),
        ("r.json", '{"matched": {}}', "is no complete result.json"),
        ("r.json", result(pseudo_is_thing=[True] * 6), "is of another network: 6 pseudo classes, 6 of them things"),
        ("r.json", result(matched={"assignment": [0, 1]}), "is of another network: 2 pseudo classes"),
        ("r.json", result(matched={"assignment": [99] * 6}), "is no complete result.json"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path, name, text, words):
    with pytest.raises(ConfigError) as caught:
        class_system(CARD, written(tmp_path, name, text))
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_of_names(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        class_system(CARD, tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"things": [1]},
        {"things": 3, "stuff": []},
        {"things": [-1], "stuff": []},
        {"things": [99999], "stuff": []},
        {"things": [1], "stuff": [0], "class_names": ["a"]},
    ],
)
def test_a_card_that_makes_no_sense_is_refused(card):
    with pytest.raises(CheckpointError):
        class_system(card)
