"""Each layout on a small generated tree: what is listed, how it is paired, and what is said where it is wrong."""

import json

import av
import numpy as np
import pytest
import small_trees as trees

from cupola.data import VideoFrame, detect_layout, open_dataset
from cupola.data.cityscapes import MAX_CAMERA_DISTANCE
from cupola.data.kitti_raw import CALIBRATION_DRIVES
from cupola.data.kitti_validation import VALIDATION_FRAMES, is_person_drive
from cupola.errors import CalibrationError, ConfigError, DataError, ImageError
from cupola.taxonomy import CITYSCAPES_19
from cupola.types import VOID


def keys(pairs):
    return [(first.key, second.key) for first, second in pairs]


class TestKittiOdometry:
    def test_lists_and_pairs(self, tmp_path):
        dataset = open_dataset(trees.kitti_odometry(tmp_path, {"04": [2, 0, 1], "01": [5, 6]}))
        assert dataset.layout == "kitti_odometry"
        assert [record.key for record in dataset.records] == [
            "01_000005",
            "01_000006",
            "04_000000",
            "04_000001",
            "04_000002",
        ]
        assert keys(dataset.pairs()) == [
            ("01_000005", "01_000006"),
            ("04_000000", "04_000001"),
            ("04_000001", "04_000002"),
        ]
        record = dataset.records[0]
        assert record.calibration.baseline == pytest.approx(trees.BASELINE)
        assert (record.calibration.fx, record.calibration.cx, record.calibration.cy) == (700, 9.5, 5.5)
        assert record.calibration_source.endswith("01/calib.txt")
        assert record.time == pytest.approx(0.5)  # line i of times.txt is frame i, not the i-th image
        assert dataset.frame(record).valid.all()

    @pytest.mark.parametrize("inside", ["sequences", "sequences/04", "."])
    def test_any_level_opens(self, tmp_path, inside):
        trees.kitti_odometry(tmp_path, {"04": [0, 1]})
        assert keys(open_dataset(tmp_path / inside).pairs()) == [("04_000000", "04_000001")]

    def test_the_official_archive_has_a_folder_more(self, tmp_path):
        trees.kitti_odometry(tmp_path / "dataset", {"04": [0, 1]})
        assert len(open_dataset(tmp_path)) == 2

    def test_grey_cameras(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"00": [0, 1]}, cameras=("image_0", "image_1"))
        dataset = open_dataset(tmp_path)
        assert dataset.layout == "kitti_odometry"
        assert dataset.records[0].calibration.baseline == pytest.approx(trees.BASELINE)

    def test_times_may_be_missing(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"04": [0, 1]})
        (tmp_path / "sequences/04/times.txt").unlink()
        assert [record.time for record in open_dataset(tmp_path).records] == [None, None]

    def test_bad_times(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"04": [0, 1]})
        (tmp_path / "sequences/04/times.txt").write_text("0.0\nnoon\n")
        with pytest.raises(DataError, match=r"04/times\.txt holds a line that is not a time"):
            open_dataset(tmp_path)

    def test_missing_calibration(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"04": [0, 1]})
        (tmp_path / "sequences/04/calib.txt").unlink()
        with pytest.raises(CalibrationError, match=r"04/calib\.txt is missing; it holds the projections P2 and P3"):
            open_dataset(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("P2: 1 2 3\n", "line P2: holds 3 numbers instead of 12"),
            (f"P3: {trees.PROJECTIONS['right']}\n", "has no line P2:"),
            ("P2: a b\n", "line P2: holds something that is not a number"),
            (
                f"P2: {trees.PROJECTIONS['right']}\nP3: {trees.PROJECTIONS['left']}\n",
                r"baseline must be positive, but is -0\.54 m; are the left and right images exchanged",
            ),
            (f"P2: {trees.PROJECTIONS['left']}\nP3: {trees.PROJECTIONS['left']}\n", r"positive, but is 0\.0 m"),
            (f"P2: {'0 ' * 12}\nP3: {'0 ' * 12}\n", "focal length of 0"),
            (
                f"P2: {trees.PROJECTIONS['left'].replace('9.5', 'nan')}\nP3: {trees.PROJECTIONS['right']}\n",
                "not finite",
            ),
        ],
    )
    def test_bad_calibration(self, tmp_path, content, message):
        trees.kitti_odometry(tmp_path, {"04": [0, 1]})
        (tmp_path / "sequences/04/calib.txt").write_text(content)
        with pytest.raises(CalibrationError, match=rf"04/calib\.txt.*{message}"):
            open_dataset(tmp_path)

    def test_binary_calibration(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"04": [0, 1]})
        (tmp_path / "sequences/04/calib.txt").write_bytes(b"\xff\xfe\x00P2")
        with pytest.raises(CalibrationError, match=r"calib\.txt cannot be read as text"):
            open_dataset(tmp_path)

    def test_missing_right_image(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"04": [0, 1, 2]})
        for number in (1, 2):
            (tmp_path / f"sequences/04/image_3/00000{number}.png").unlink()
        with pytest.raises(
            ImageError, match=r"image_3/000001\.png is missing \(and 1 more\): .*image_2/000001\.png has"
        ):
            open_dataset(tmp_path)

    def test_labelled_pixels_are_the_truth(self, tmp_path):
        folder = trees.kitti_odometry(tmp_path, {"04": [0, 1]}) / "sequences/04/labels_image_2"
        trees.labelled_pixels(folder / "000001.npz")
        trees.labelled_pixels(folder / "000007.npz")  # of no image
        (folder / "readme.txt").write_text("ours")
        dataset = open_dataset(tmp_path)
        assert [record.truth for record in dataset.records] == [None, folder / "000001.npz"]
        assert dataset.truth_density() < 1
        assert dataset.truth(dataset.records[0], CITYSCAPES_19) is None
        assert dataset.moving(dataset.records[0]) is None
        truth = dataset.truth(dataset.records[1], CITYSCAPES_19)
        assert [CITYSCAPES_19.names[k] for k in truth.classes[:2, 0]] == ["road", "car"]
        assert (truth.classes[2:] == VOID).all()
        assert len(np.unique(truth.instances)) == 2
        assert dataset.moving(dataset.records[1]) == frozenset()

    def test_labelled_pixels_are_of_the_colour_camera(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"04": [0, 1]}, cameras=("image_0", "image_1"))
        trees.labelled_pixels(tmp_path / "sequences/04/labels_image_2/000000.npz")
        dataset = open_dataset(tmp_path)
        assert [record.truth for record in dataset.records] == [None, None]
        assert dataset.truth_density() == 1

    def test_missing_right_folder(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"04": [0]})
        (tmp_path / "sequences/04/image_3").rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match=r"04/image_3 is not a directory that can be read"):
            open_dataset(tmp_path)


class TestKittiRaw:
    DRIVE = "2011_09_26_drive_0001"

    def test_lists_and_pairs(self, tmp_path):
        other = "2011_09_29_drive_0004"
        dataset = open_dataset(trees.kitti_raw(tmp_path, {other: [7], self.DRIVE: [0, 1, 3]}))
        assert dataset.layout == "kitti_raw"
        assert [record.key for record in dataset.records] == [
            f"{self.DRIVE}_sync_0000000000",
            f"{self.DRIVE}_sync_0000000001",
            f"{self.DRIVE}_sync_0000000003",
            f"{other}_sync_0000000007",
        ]
        assert keys(dataset.pairs()) == [(f"{self.DRIVE}_sync_0000000000", f"{self.DRIVE}_sync_0000000001")]
        assert [gap.after for gap in dataset.gaps()] == [f"{self.DRIVE}_sync_0000000003"]
        first, second, *_ = dataset.records
        assert second.time - first.time == pytest.approx(0.1, abs=1e-5)
        assert first.calibration.baseline == pytest.approx(trees.BASELINE)
        valid = dataset.frame(first).valid
        assert not valid[0].any()  # 5 % of 12 rows
        assert not valid[-2:].any()  # 20 %
        assert valid[1:-2].all()

    @pytest.mark.parametrize("inside", ["2011_09_26", "2011_09_26/2011_09_26_drive_0001_sync"])
    def test_any_level_opens(self, tmp_path, inside):
        trees.kitti_raw(tmp_path, {self.DRIVE: [0, 1]})
        assert len(open_dataset(tmp_path / inside).pairs()) == 1

    def test_calibration_drives_are_left_out(self, tmp_path):
        checkerboard = sorted(CALIBRATION_DRIVES)[0]
        dataset = open_dataset(trees.kitti_raw(tmp_path, {self.DRIVE: [0], checkerboard: [0, 1]}))
        assert len(CALIBRATION_DRIVES) == 5
        assert [record.sequence for record in dataset.records] == [f"{self.DRIVE}_sync"]
        assert any(checkerboard in note for note in dataset.notes)

    def test_as_in_the_paper(self, tmp_path):
        """2011_09_26_drive_0005 has frames 10 and 59 of the validation set; 0052 is no drive of people, 0053 is."""
        drive, people, other = "2011_09_26_drive_0005", "2011_09_28_drive_0053", "2011_09_28_drive_0052"
        checkerboard = sorted(CALIBRATION_DRIVES)[0]
        frames = {drive: range(2, 19), people: [0, 1], other: [0, 1], checkerboard: [0], self.DRIVE: [10, 11]}
        root = trees.kitti_raw(tmp_path, {name: list(numbers) for name, numbers in frames.items()})
        everything, dataset = open_dataset(root), open_dataset(root, "kitti_raw_paper")
        assert (everything.layout, dataset.layout) == ("kitti_raw", "kitti_raw_paper")
        kept = {name: [record.number for record in records] for name, records in dataset.sequences.items()}
        assert kept == {f"{drive}_sync": [2, 3, 4, 16, 17, 18], f"{other}_sync": [0, 1], f"{self.DRIVE}_sync": [10, 11]}
        assert (4, 16) not in [(first.number, second.number) for first, second in dataset.pairs()]
        assert [gap.after for gap in dataset.gaps()] == [f"{drive}_sync_0000000016"]
        assert dataset.notes[1].startswith("left out as in the paper: 1 of the drives of people, and 11 frames of the")
        assert set(dataset.records) < set(everything.records)

    def test_the_paper_leaves_out_142_frames_of_29_drives(self):
        assert (len(VALIDATION_FRAMES), sum(map(len, VALIDATION_FRAMES.values()))) == (29, 142)
        assert not any(is_person_drive(drive) for drive in [*VALIDATION_FRAMES, *CALIBRATION_DRIVES])

    def test_missing_calibration(self, tmp_path):
        trees.kitti_raw(tmp_path, {self.DRIVE: [0, 1]})
        (tmp_path / "2011_09_26/calib_cam_to_cam.txt").unlink()
        with pytest.raises(CalibrationError, match=r"2011_09_26/calib_cam_to_cam\.txt is missing"):
            open_dataset(tmp_path)

    def test_bad_timestamps(self, tmp_path):
        trees.kitti_raw(tmp_path, {self.DRIVE: [0, 1]})
        (tmp_path / f"2011_09_26/{self.DRIVE}_sync/image_02/timestamps.txt").write_text("yesterday\n")
        with pytest.raises(DataError, match=r"timestamps\.txt holds a line that is not a date and time"):
            open_dataset(tmp_path)


class TestKitti2015:
    def test_stereo_and_multi_view(self, tmp_path):
        dataset = open_dataset(trees.kitti_2015(tmp_path, {"000000": [10, 11], "000043": [6, 7, 8]}, "testing"))
        assert dataset.layout == "kitti_2015"
        assert [record.key for record in dataset.records][:2] == ["000000_10", "000000_11"]
        assert keys(dataset.pairs()) == [
            ("000000_10", "000000_11"),
            ("000043_06", "000043_07"),
            ("000043_07", "000043_08"),
        ]
        assert dataset.frame(dataset.records[0]).valid.all()

    def test_a_split_opens_by_itself(self, tmp_path):
        trees.kitti_2015(tmp_path, {"000000": [10, 11]})
        dataset = open_dataset(tmp_path / "training")
        assert dataset.layout == "kitti_2015"
        assert dataset.records[0].key == "000000_10"

    def test_both_splits_have_distinct_keys(self, tmp_path):
        trees.kitti_2015(tmp_path, {"000000": [10]}, "training")
        trees.kitti_2015(tmp_path, {"000000": [10, 11]}, "testing")
        assert [record.key for record in open_dataset(tmp_path).records] == [
            "testing_000000_10",
            "testing_000000_11",
            "training_000000_10",
        ]

    def test_missing_calibration_names_the_clip(self, tmp_path):
        trees.kitti_2015(tmp_path, {"000000": [10], "000001": [10]})
        (tmp_path / "training/calib_cam_to_cam/000001.txt").unlink()
        with pytest.raises(CalibrationError, match=r"calib_cam_to_cam/000001\.txt is missing"):
            open_dataset(tmp_path)

    def test_strange_name(self, tmp_path):
        trees.kitti_2015(tmp_path, {"000000": [10]})
        for name in ("image_2", "image_3"):
            trees.image(tmp_path / "training" / name / "first.png")
        with pytest.raises(DataError, match=r"first\.png is not named CLIP_FRAME"):
            open_dataset(tmp_path)

    def test_instance_truth_is_preferred_to_semantic(self, tmp_path):
        trees.kitti_2015(tmp_path, {"000000": [10, 11], "000001": [10]})
        for clip in ("000000", "000001"):
            trees.ids(tmp_path / f"training/semantic/{clip}_10.png", 26)
        trees.ids(tmp_path / "training/instance/000000_10.png", 26 * 256 + 3)
        truths = [record.truth and record.truth.parent.name for record in open_dataset(tmp_path).records]
        assert truths == ["instance", None, "semantic"]


class TestCityscapes:
    def test_snippets(self, tmp_path):
        dataset = open_dataset(trees.cityscapes(tmp_path, {"aachen_000000": list(range(30)), "bochum_000000": [0, 2]}))
        assert dataset.layout == "cityscapes"
        pairs = dataset.pairs()
        assert len(pairs) == 29
        assert keys(pairs)[0] == ("aachen_000000_000000", "aachen_000000_000001")
        assert [(gap.before, gap.after) for gap in dataset.gaps()] == [("bochum_000000_000000", "bochum_000000_000002")]
        record = dataset.records[0]
        assert record.calibration.cx == 1096.9
        assert record.calibration_source.endswith("aachen_000000_000019_camera.json")
        assert dataset.records[17].time == pytest.approx(1.0)
        assert (dataset.margins.left, dataset.margins.right) == (96 / 2048, 96 / 2048)
        assert not dataset.margins.valid(1024, 2048)[:51].any()
        assert dataset.margins.valid(640, 1280).sum() == (640 - 32 - 128) * (1280 - 2 * 60)  # spec-stage1 1.1

    @pytest.mark.parametrize("inside", ["leftImg8bit_sequence", "leftImg8bit_sequence/train"])
    def test_a_split_opens_by_itself(self, tmp_path, inside):
        trees.cityscapes(tmp_path, {"aachen_000000": [0, 1]})
        trees.cityscapes(tmp_path, {"zurich_000000": [0, 1]}, split="val")
        found = {record.sequence for record in open_dataset(tmp_path / inside).records}
        assert found == {"aachen_000000", "zurich_000000"} - ({"zurich_000000"} if inside.endswith("train") else set())

    def test_a_city_opens_by_itself(self, tmp_path, monkeypatch):
        trees.cityscapes(tmp_path, {"aachen_000000": [0, 1], "bochum_000000": [0, 1]})
        monkeypatch.chdir(tmp_path / "leftImg8bit_sequence/train/bochum")
        assert [record.sequence for record in open_dataset(trees.Path()).records] == ["bochum_000000"] * 2

    def test_video_is_preferred_to_single_images(self, tmp_path):
        trees.cityscapes(tmp_path, {"aachen_000000": [18, 19, 20]})
        trees.cityscapes(tmp_path, {"aachen_000000": [19]}, images="leftImg8bit")
        dataset = open_dataset(tmp_path)
        assert len(dataset) == 3
        assert "leftImg8bit_sequence" in str(dataset.records[0].left)

    def test_single_images_with_truth(self, tmp_path):
        trees.cityscapes(tmp_path, {"aachen_000000": [19], "aachen_000001": [19]}, images="leftImg8bit")
        trees.ids(tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_instanceIds.png", 26001)
        trees.ids(tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png", 26)
        truths = [record.truth and record.truth.name for record in open_dataset(tmp_path).records]
        assert truths == [None, "aachen_000001_000019_gtFine_instanceIds.png"]

    def test_left_images_alone_are_passed_over(self, tmp_path):
        trees.cityscapes(tmp_path, {"aachen_000000": [19], "aachen_000001": [19]}, images="leftImg8bit")
        (tmp_path / "rightImg8bit/train/aachen/aachen_000000_000019_rightImg8bit.png").unlink()
        dataset = open_dataset(tmp_path)
        assert [record.key for record in dataset.records] == ["aachen_000001_000019"]
        assert "1 left image" in dataset.notes[0]
        assert "aachen_000000_000019_leftImg8bit.png" in dataset.notes[0]

    def test_no_right_image_at_all(self, tmp_path):
        trees.cityscapes(tmp_path, {"aachen_000000": [19]}, images="leftImg8bit")
        (tmp_path / "rightImg8bit").rename(tmp_path / "elsewhere")
        with pytest.raises(
            ImageError, match=r"rightImg8bit/train/aachen/aachen_000000_000019_rightImg8bit\.png is missing and so is"
        ):
            open_dataset(tmp_path)

    def test_nearest_camera_file(self, tmp_path):
        """hamburg_000000 is one long drive with an annotated frame, hence a camera file, per snippet."""
        trees.cityscapes(tmp_path, {"hamburg_000000": [0, 1, 100, 130]})
        folder = tmp_path / "camera/train/hamburg"
        trees.camera(folder / "hamburg_000000_000119_camera.json", fx=2000)
        found = {record.number: record.calibration.fx for record in open_dataset(tmp_path).records}
        assert found == {0: 2262.5, 1: 2262.5, 100: 2000, 130: 2000}

    def test_no_camera_file_near_enough(self, tmp_path):
        trees.cityscapes(tmp_path, {"hamburg_000000": [0, 119 + MAX_CAMERA_DISTANCE]})
        trees.camera(tmp_path / "camera/train/hamburg/hamburg_000000_000119_camera.json")
        with pytest.raises(CalibrationError, match=r"frame 139 of hamburg_000000 has no camera file within 19 frames"):
            open_dataset(tmp_path)

    def test_the_only_camera_file_is_taken(self, tmp_path):
        assert len(open_dataset(trees.cityscapes(tmp_path, {"hamburg_000000": [0, 300]}))) == 2

    def test_no_camera_file(self, tmp_path):
        trees.cityscapes(tmp_path, {"aachen_000000": [0]})
        (tmp_path / "camera").rename(tmp_path / "elsewhere")
        with pytest.raises(
            CalibrationError, match=r"aachen_000000_\*_camera\.json is missing, so frame 0 of aachen_000000"
        ):
            open_dataset(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not readable JSON"),
            ("[]", "lacks the number intrinsic.fx"),
            ('{"intrinsic": {"fx": "wide"}}', "lacks the number intrinsic.fx"),
            ('{"intrinsic": {"fx": 1, "fy": 1, "u0": 1, "v0": 1}}', "lacks the number extrinsic.baseline"),
            ('{"intrinsic": {"fx": 1, "fy": 1, "u0": 1, "v0": 1}, "extrinsic": {"baseline": -0.2}}', "exchanged"),
        ],
    )
    def test_bad_camera_file(self, tmp_path, content, message):
        trees.cityscapes(tmp_path, {"aachen_000000": [0]})
        (tmp_path / "camera/train/aachen/aachen_000000_000019_camera.json").write_text(content)
        with pytest.raises(CalibrationError, match=rf"aachen_000000_000019_camera\.json.*{message}"):
            open_dataset(tmp_path)

    def test_strange_name(self, tmp_path):
        trees.cityscapes(tmp_path, {"aachen_000000": [0]})
        trees.image(tmp_path / "leftImg8bit_sequence/train/aachen/overview.png")
        with pytest.raises(DataError, match=r"overview\.png is not named CITY_SEQUENCE_FRAME_leftImg8bit"):
            open_dataset(tmp_path)


class TestFolder:
    def test_root_is_the_sequence(self, tmp_path):
        dataset = open_dataset(trees.folder(tmp_path / "drive", ["000001", "000000", "000003"]))
        assert dataset.layout == "folder"
        assert [record.key for record in dataset.records] == ["000000", "000001", "000003"]
        assert [record.sequence for record in dataset.records] == ["drive"] * 3
        assert keys(dataset.pairs()) == [("000000", "000001")]
        assert [(gap.sequence, gap.before, gap.after) for gap in dataset.gaps()] == [("drive", "000001", "000003")]
        assert dataset.records[0].calibration.fy == 701
        assert dataset.frame(dataset.records[0]).valid.all()

    def test_sequences_with_own_or_common_calibration(self, tmp_path):
        trees.folder(tmp_path / "a", ["frame_9", "frame_10"], None)
        trees.folder(tmp_path / "b", ["0"], trees.CALIBRATION.replace("0.54", "0.12"))
        (tmp_path / "c").mkdir()  # no left/, so no sequence
        (tmp_path / "calibration.yaml").write_text(trees.CALIBRATION)
        dataset = open_dataset(tmp_path)
        assert [(record.key, record.calibration.baseline) for record in dataset.records] == [
            ("a_frame_10", 0.54),
            ("a_frame_9", 0.54),
            ("b_0", 0.12),
        ]
        assert keys(dataset.pairs()) == [("a_frame_9", "a_frame_10")]  # by number, not by name

    def test_fps_gives_times(self, tmp_path):
        dataset = open_dataset(trees.folder(tmp_path, ["10", "11"], trees.CALIBRATION + "fps: 5\n"))
        assert [record.time for record in dataset.records] == [2.0, 2.2]

    def test_time_stamps_as_names(self, tmp_path):
        start = 1_403_636_579_763_555_584
        stems = [str(start + 50_000_000 * i) for i in (0, 1, 2, 4, 5)]
        dataset = open_dataset(trees.folder(tmp_path, stems))
        assert keys(dataset.pairs()) == [(stems[0], stems[1]), (stems[1], stems[2]), (stems[3], stems[4])]
        assert [gap.before for gap in dataset.gaps()] == [stems[2]]
        assert dataset.records[0].time == pytest.approx(1_403_636_579.76, abs=0.01)

    def test_time_stamps_in_seconds(self, tmp_path):
        stems = ["1311868164.363181", "1311868164.400000", "1311868164.4368", "1311868165.0"]
        dataset = open_dataset(trees.folder(tmp_path, stems))
        assert [record.time for record in dataset.records] == [float(stem) for stem in stems]
        assert [first.key for first, _ in dataset.pairs()] == stems[:2]

    def test_margins(self, tmp_path):
        calibration = trees.CALIBRATION + "margins: {bottom: 0.25, left: 0.1}\n"
        dataset = open_dataset(trees.folder(tmp_path, ["0"], calibration))
        valid = dataset.frame(dataset.records[0]).valid
        assert valid[:9, 2:].all()
        assert not valid[9:].any()
        assert not valid[:, :2].any()

    def test_margins_that_differ(self, tmp_path):
        trees.folder(tmp_path / "a", ["0"])
        trees.folder(tmp_path / "b", ["0"], trees.CALIBRATION + "margins: {top: 0.1}\n")
        with pytest.raises(
            CalibrationError, match=r"b/calibration\.yaml gives other margins than the sequences before"
        ):
            open_dataset(tmp_path)

    def test_truth_and_movers(self, tmp_path):
        trees.folder(tmp_path / "0000", ["000000", "000001"])
        truth = trees.ids(tmp_path / "0000/truth/000000_instanceIds.png", 26001)
        (tmp_path / "0000/truth/moving.json").write_text(json.dumps({"000000": [26001, 24002]}))
        dataset = open_dataset(tmp_path)
        assert [record.truth for record in dataset.records] == [truth, None]
        assert [dataset.moving(record) for record in dataset.records] == [frozenset({26001, 24002}), None]

    def test_bad_movers(self, tmp_path):
        trees.folder(tmp_path, ["000000"])
        (tmp_path / "truth").mkdir()
        (tmp_path / "truth/moving.json").write_text("[1, 2]")
        with pytest.raises(DataError, match=r"truth/moving\.json must hold"):
            open_dataset(tmp_path)

    @pytest.mark.parametrize("key", ["fx", "fy", "cx", "cy", "baseline"])
    def test_each_missing_key_is_named(self, tmp_path, key):
        lines = [line for line in trees.CALIBRATION.splitlines() if not line.startswith(key)]
        trees.folder(tmp_path, ["0"], "\n".join(lines))
        with pytest.raises(CalibrationError, match=rf"calibration\.yaml lacks {key}, the .*; add it"):
            open_dataset(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "must hold lines such as `fx: 700`"),
            ("fx: [", "is not readable YAML"),
            (trees.CALIBRATION + "basline: 1\n", "there is no setting 'basline'; did you mean baseline?"),
            (trees.CALIBRATION.replace("700", "wide"), "fx must be a number, not 'wide'"),
            (trees.CALIBRATION.replace("700", "yes"), "fx must be a number, not True"),
            (trees.CALIBRATION.replace("700", ".inf"), "not finite"),
            (trees.CALIBRATION.replace("700", "-700"), r"focal lengths must be positive, but fx = -700"),
            (trees.CALIBRATION.replace("0.54", "0"), r"baseline must be positive, but is 0\.0 m"),
            (trees.CALIBRATION.replace("0.54", "-0.54"), "are the left and right images exchanged"),
            (trees.CALIBRATION + "width: 20\n", "gives only one of width and height"),
            (
                trees.CALIBRATION + "width: 40\nheight: 24\n",
                r"is for images of 40 x 24 pixels, but .*left/0\.png has 20 x 12",
            ),
            (trees.CALIBRATION + "fps: 0\n", "fps must be positive"),
            (trees.CALIBRATION + "margins: 0.1\n", "margins must hold top, bottom, left or right"),
            (trees.CALIBRATION + "margins: {botom: 0.1}\n", "did you mean bottom"),
            (trees.CALIBRATION + "margins: {top: 20}\n", "the top margin must be a fraction"),
            (trees.CALIBRATION + "margins: {top: 0.5, bottom: 0.5}\n", "leave no pixel"),
        ],
    )
    def test_bad_calibration(self, tmp_path, content, message):
        trees.folder(tmp_path, ["0"], content)
        with pytest.raises(CalibrationError, match=rf"calibration\.yaml.*{message}"):
            open_dataset(tmp_path)

    def test_yaml_runs_nothing(self, tmp_path):
        trees.folder(tmp_path, ["0"], "!!python/object/apply:os.mkdir ['made']\n")
        with pytest.raises(CalibrationError, match="is not readable YAML"):
            open_dataset(tmp_path)

    def test_size_that_fits(self, tmp_path):
        assert len(open_dataset(trees.folder(tmp_path, ["0"], trees.CALIBRATION + "width: 20\nheight: 12\n"))) == 1

    def test_missing_calibration(self, tmp_path):
        with pytest.raises(CalibrationError, match=r"calibration\.yaml is missing; write fx, fy, cx, cy"):
            open_dataset(trees.folder(tmp_path, ["0"], None))

    def test_missing_right_image(self, tmp_path):
        trees.folder(tmp_path, ["0", "1"])
        (tmp_path / "right/1.png").unlink()
        with pytest.raises(ImageError, match=r"right/1\.png is missing: .*left/1\.png has no right image"):
            open_dataset(tmp_path)

    def test_suffixes_may_differ_between_the_cameras(self, tmp_path):
        trees.folder(tmp_path, ["0"])
        (tmp_path / "right/0.png").rename(tmp_path / "right/0.PNG")
        assert open_dataset(tmp_path).records[0].right.name == "0.PNG"

    def test_one_frame_twice(self, tmp_path):
        trees.folder(tmp_path, ["0"])
        trees.image(tmp_path / "other.png").rename(tmp_path / "left/0.bmp")
        with pytest.raises(DataError, match=r"left/0\.bmp and .*left/0\.png are two images of one frame"):
            open_dataset(tmp_path)

    def test_names_without_number(self, tmp_path):
        with pytest.raises(DataError, match=r"left/first\.png has no frame number in its name"):
            open_dataset(trees.folder(tmp_path, ["first"]))

    def test_one_number_twice(self, tmp_path):
        with pytest.raises(DataError, match=r"a_1\.png and .*b_1\.png both have frame number 1"):
            open_dataset(trees.folder(tmp_path, ["a_1", "b_1"]))

    def test_keys_that_collide(self, tmp_path):
        trees.folder(tmp_path / "a", ["b_1"])
        trees.folder(tmp_path / "a_b", ["1"])
        with pytest.raises(DataError, match="get the same key a_b_1"):
            open_dataset(tmp_path)

    def test_keys_are_file_names(self, tmp_path):
        trees.folder(tmp_path / "my drive: Köln", ["a b 1"])
        assert open_dataset(tmp_path).records[0].key == "my-drive--Köln_a-b-1"

    def test_hidden_and_foreign_files_are_passed_over(self, tmp_path):
        trees.folder(tmp_path, ["0"])
        (tmp_path / "left/notes.txt").write_text("sunny")
        (tmp_path / "left/._0.png").write_bytes(b"what another system leaves behind")
        assert len(open_dataset(tmp_path)) == 1


def write_video(path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class TestFolderOfVideos:
    @pytest.fixture
    def root(self, tmp_path):
        write_video(tmp_path / "left.mp4", 4)
        write_video(tmp_path / "right.mp4", 3)
        (tmp_path / "calibration.yaml").write_text(trees.CALIBRATION)
        return tmp_path

    def test_frames(self, root):
        dataset = open_dataset(root)
        assert [record.key for record in dataset.records] == ["000000", "000001", "000002"]
        assert dataset.records[1].left == VideoFrame(root / "left.mp4", 1)
        assert dataset.records[1].time == pytest.approx(0.1)
        assert len(dataset.pairs()) == 2
        assert "holds 4 frames" in dataset.notes[0]
        clip = dataset.clip(dataset.pairs()[1])
        assert clip.first.left.shape == (48, 64, 3)
        assert abs(float(clip.first.left.mean()) - 60) < 8
        assert abs(float(clip.second.right.mean()) - 120) < 8
        assert dataset.source_size(dataset.records[0]) == (48, 64)

    def test_calibration_for_another_size(self, root):
        (root / "calibration.yaml").write_text(trees.CALIBRATION + "width: 640\nheight: 480\n")
        with pytest.raises(CalibrationError, match=r"640 x 480 pixels, but frame 0 of .*left\.mp4 has 64 x 48"):
            open_dataset(root)

    def test_missing_right_video(self, root):
        (root / "right.mp4").unlink()
        with pytest.raises(ImageError, match=r"right\.mp4 is missing: .*left\.mp4 has no right video"):
            open_dataset(root)

    def test_broken_video(self, root):
        content = (root / "right.mp4").read_bytes()
        (root / "right.mp4").write_bytes(content[: len(content) // 2])
        with pytest.raises(ImageError, match=r"right\.mp4 holds no video stream that can be read"):
            open_dataset(root)


class TestDetection:
    def test_not_there(self, tmp_path):
        with pytest.raises(DataError, match="none does not exist"):
            open_dataset(tmp_path / "none")

    def test_not_a_directory(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.png is not a directory"):
            open_dataset(trees.image(tmp_path / "a.png"))

    def test_empty(self, tmp_path):
        with pytest.raises(DataError, match="is empty; name the directory"):
            open_dataset(tmp_path)

    def test_no_known_layout_says_what_each_looks_for(self, tmp_path):
        trees.image(tmp_path / "pictures/a.png")
        with pytest.raises(DataError) as caught:
            open_dataset(tmp_path)
        for word in (
            "kitti_odometry: sequences/NN/image_2",
            "kitti_raw: ",
            "kitti_2015: ",
            "cityscapes: ",
            "folder: left/",
        ):
            assert word in str(caught.value)

    def test_unknown_layout_gets_the_nearest(self, tmp_path):
        with pytest.raises(ConfigError, match="there is no layout 'kiti_raw'; did you mean kitti_raw"):
            open_dataset(tmp_path, layout="kiti_raw")
        with pytest.raises(ConfigError, match="there is no layout 'x'; known are auto, kitti_odometry, "):
            open_dataset(tmp_path, layout="x")

    def test_named_layout_that_does_not_fit(self, tmp_path):
        with pytest.raises(DataError, match="is not in layout cityscapes, which looks for leftImg8bit_sequence"):
            open_dataset(trees.folder(tmp_path, ["0"]), layout="cityscapes")

    def test_layout_without_a_frame(self, tmp_path):
        for name in ("left", "right"):
            (tmp_path / name).mkdir()
        (tmp_path / "calibration.yaml").write_text(trees.CALIBRATION)
        with pytest.raises(DataError, match="is in layout folder but holds no stereo frame"):
            open_dataset(tmp_path)

    @pytest.mark.parametrize("scale", [0.0, -1.0, 5.0, float("nan")])
    def test_impossible_scale(self, tmp_path, scale):
        with pytest.raises(ConfigError, match="scale must be above 0"):
            open_dataset(trees.folder(tmp_path, ["0"]), scale=scale)

    def test_each_layout_is_told_from_the_others(self, tmp_path):
        made = {
            "kitti_odometry": trees.kitti_odometry(tmp_path / "odometry", {"00": [0]}),
            "kitti_raw": trees.kitti_raw(tmp_path / "raw", {"2011_09_26_drive_0001": [0]}),
            "kitti_2015": trees.kitti_2015(tmp_path / "2015", {"000000": [10]}),
            "cityscapes": trees.cityscapes(tmp_path / "cityscapes", {"aachen_000000": [0]}),
            "folder": trees.folder(tmp_path / "own", ["0"]),
        }
        assert {name: detect_layout(root) for name, root in made.items()} == {name: name for name in made}

    def test_a_directory_that_may_not_be_read(self, tmp_path, monkeypatch):
        trees.folder(tmp_path, ["0"])

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("cupola.data.listing.os.scandir", refuse)
        with pytest.raises(DataError, match="may not be read by you; change its permissions"):
            open_dataset(tmp_path)

    def test_opening_reads_no_image(self, tmp_path):
        trees.kitti_odometry(tmp_path, {"00": [0, 1]})
        for path in tmp_path.rglob("*.png"):
            path.write_bytes(b"")
        dataset = open_dataset(tmp_path)
        assert len(dataset.pairs()) == 1
        with pytest.raises(ImageError, match=r"image_2/000000\.png is empty"):
            dataset.frame(dataset.records[0])
