"""What a video shows, decoded again."""

import av
import numpy as np
import pytest

from wamrl.report import side_by_side


def _decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]


def test_video_shows_both_halves_in_their_place(tmp_path):
    left, right = (np.zeros((3, 2, 63, 64, 3), np.uint8) for _ in range(2))
    left[..., 0], right[..., 2] = 220, 220  # imagined red, executed blue
    left[1:], right[1:] = 90, 90
    real = np.array([True, True, False])
    side_by_side(
        tmp_path / "v.mp4", right, left, captions=["+4", "+8", "+12"], outcome="success", real=real
    )
    first, second, third = _decode(tmp_path / "v.mp4")
    height, width, _ = first.shape
    assert height % 2 == width % 2 == 0 and width >= 2 * 256
    for row in (height // 4, 3 * height // 4):  # a row per view
        red, blue = first[row, width // 4], first[row, 3 * width // 4]
        assert red[0] > 180 and red[2] < 60 and blue[2] > 180 and blue[0] < 60
        assert abs(second[row, width // 4] - second[row, 3 * width // 4]).max() < 8
        assert abs(third[row, 3 * width // 4] - 90).min() > 15  # no executed frame: greyed
    for text in (first[:28, : width // 2], first[:28, width // 2 :], first[-28:]):
        assert text.max() > 180
    green = first[-28:].reshape(-1, 3).astype(int)
    assert (green[:, 1] - green[:, 0]).max() > 60
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_video_complaints(tmp_path):
    frames = np.zeros((2, 1, 8, 8, 3), np.uint8)
    for left, right, more in (
        (frames, frames[:1], {}),
        (frames[:0], frames[:0], {}),
        (frames, frames.astype(float), {}),
        (frames, frames, {"captions": ["a"]}),
    ):
        with pytest.raises(ValueError):
            side_by_side(tmp_path / "v.mp4", left, right, **more)
    assert not list(tmp_path.iterdir())
