"""Sequential composition: frames, SMSE against a hand-computed case, clips that open elsewhere."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from toy import service  # type: ignore[import-not-found]  # noqa: F401 - a fixture

from editing.errors import EditingError
from editing.face.sequence import gif, mp4, mp4_writer
from memorygan.analysis.smse import earlier_parts, step_mask_error, step_smse


def test_smse_by_hand():
    """Four pixels; part 2 is added at pixel 3, whose change does not count. Of the three that earlier parts keep, pixel
    0 changes by 1 and 0.5 in two colours, and pixel 1 leaves the range: 0.5 of its step to 2.5 is seen."""
    before, after = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    after[0, 0, 0, 0], after[0, 1, 0, 0] = 1.0, -0.5
    before[0, 2, 0, 1], after[0, 2, 0, 1] = 0.5, 2.5
    after[0, :, 1, 1] = 1.0
    covered = earlier_parts(torch.tensor([[[0, 1], [0, 2]]]), 2)
    expected = (1.0 + 0.25 + 0.25) / 3
    assert step_smse(before, after, covered).tolist() == pytest.approx([expected])
    as_0_to_1 = step_smse(before.clamp(-1, 1) / 2, after.clamp(-1, 1) / 2, covered)
    assert as_0_to_1.tolist() == pytest.approx([expected / 4]), "the range 0–1 gives a quarter"
    assert step_smse(before, after, torch.zeros(1, 2, 2)).tolist() == [0.0], "the part covers everything"
    with pytest.raises(ValueError, match="two pictures"):
        step_smse(before, after, covered[:, :1])


def test_the_mask_error_by_hand():
    """Four pixels, three parts; part 2 is added at pixel 3, and pixel 0 flips from part 0 to part 1 although it should
    not: two of the other channels change by a full step at one of the three pixels outside."""
    before, after = torch.full((1, 3, 2, 2), -1.0), torch.full((1, 3, 2, 2), -1.0)
    before[0, 0] = 1.0
    after[0, 0] = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    after[0, 1, 0, 0] = 1.0
    after[0, 2, 1, 1] = 1.0
    expected = (1.0 + 1.0) / 2 / 3
    assert step_mask_error(before, after, 2).tolist() == pytest.approx([expected])


def test_the_mask_error_ignores_the_new_part_and_its_place():
    before = torch.full((1, 2, 4, 4), -1.0)
    before[:, 0] = 1.0
    after = before.clone()
    after[:, 0, :2], after[:, 1, :2] = -1.0, 1.0
    assert step_mask_error(before, after, 1).tolist() == [0.0]
    assert step_mask_error(before, -before, 1).tolist() == [0.0], "the part covers everything"
    with pytest.raises(ValueError, match="not 7"):
        step_mask_error(before, after, 7)
    with pytest.raises(ValueError, match="two masks"):
        step_mask_error(before, after[:, :1], 0)


def test_every_step_adds_its_part(service):  # noqa: F811
    face = service.new_face(4).session
    frames = service.compose(face)
    names = [part.name for part in service.parts]
    assert [frame.part for frame in frames] == names
    colours = {part.name: part.color for part in service.parts}
    for frame in frames:
        assert frame.present == tuple(names[: frame.step])
        seen = {tuple(colour) for colour in frame.mask.reshape(-1, 3).tolist()}
        assert colours[frame.part] in seen, f"{frame.part} shows in the mask"
        assert seen <= {colours[name] for name in frame.present}
        assert frame.image.shape == frame.mask.shape == frame.depth.shape
    assert np.array_equal(frames[-1].image, service.view(face).image)
    assert np.isnan(frames[0].smse)
    assert all(0 <= frame.smse < 0.01 for frame in frames[1:]), "the toy composes nearly perfectly"
    assert frames[0].depth.max() < 10
    assert frames[-1].depth.max() > 200


def test_the_order_is_free_and_checked(service):  # noqa: F811
    face = service.new_face(4).session
    frames = service.compose(face, ["hair", "background", "mouth"], size=16)
    assert [frame.part for frame in frames] == ["hair", "background", "mouth"]
    assert frames[0].image.shape == (16, 16, 3)
    for order, answer in ((["hair", "hair"], "twice"), (["beard"], "unknown part"), ([], "empty")):
        with pytest.raises(EditingError, match=answer):
            service.compose(face, order)


def test_a_gif_plays_every_frame(service):  # noqa: F811
    face = service.new_face(4).session
    image = Image.open(io.BytesIO(service.export_gif(face, rows=("image", "mask"), frame_ms=200)))
    assert getattr(image, "n_frames", 1) == len(service.parts)
    assert image.width == 2 * image.height
    assert image.height >= 256
    assert image.info["loop"] == 0
    image.seek(1)
    second = np.asarray(image.convert("RGB")).astype(int)
    image.seek(12)
    assert np.abs(second - np.asarray(image.convert("RGB")).astype(int)).mean() > 1


def test_an_mp4_is_a_clip_of_the_right_length(service, tmp_path):  # noqa: F811
    face = service.new_face(4).session
    path = tmp_path / "clip.mp4"
    path.write_bytes(service.export_mp4(face, ["background", "skin", "hair"], rows=("image",), frame_ms=200))
    ffmpeg = mp4_writer().get_ffmpeg_exe()
    told = subprocess.run([ffmpeg, "-i", str(path)], capture_output=True, text=True, check=False, timeout=60).stderr
    assert "h264" in told
    assert "256x256" in told
    assert "00:00:01.2" in told, "two frames of 0.2 s, and the last one four times as long"


def test_unusable_clips_are_refused(service):  # noqa: F811
    frames = service.compose(service.new_face(4).session, ["background"], size=16)
    for rows, frame_ms, answer in (((), 100, "rows"), (("sound",), 100, "rows"), (("image",), 1, "lasts 1 ms")):
        with pytest.raises(EditingError, match=answer):
            gif(frames, rows, frame_ms)
    with pytest.raises(EditingError, match="no frame"):
        mp4([])
