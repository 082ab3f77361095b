"""Pictures of coloured shapes, at any resolution: a scene is a function of (seed, index), a picture of a scene alone.

Coordinates are shares of the picture's side: x to the right, y down. Every kind of shape is its own mirror image, and
its angle lies within the turn after which it looks the same (:data:`TURN`), so that no two angles look alike.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tinymim.seeds import stream

KINDS = ("circle", "ring", "half", "triangle", "square", "bar", "cross", "star")
TURN = tuple(2 * math.pi / fold for fold in (math.inf, math.inf, 1, 3, 4, 2, 4, 5))
COLORS = ("red", "yellow", "green", "cyan", "blue", "magenta")
MOST = 6  # shapes in a scene

_RGB = np.array([[220, 40, 40], [225, 205, 40], [45, 180, 60], [50, 200, 210], [45, 75, 220], [205, 60, 190]], float)
_HAZE = 0.45  # of the ground's colour in the farthest shape's
_WAVES = 4
_UNUSED = (0, 0, 0)  # lengthens the key, so that no order or augmentation draws the same numbers


@dataclass(frozen=True)
class Shape:
    """One shape.

    Args:
        kind: index into :data:`KINDS`.
        color: index into :data:`COLORS`.
        x: of the centre.
        y: of the centre.
        size: diameter of the circle around it.
        angle: in radians, clockwise as seen, from 0 to its kind's :data:`TURN`.
        depth: from 0, near, to 1; nearer shapes hide farther ones, and distance fades a shape into the ground.
        rgb: its colour before that, three numbers to 255, near the one that ``color`` names.
    """

    kind: int
    color: int
    x: float
    y: float
    size: float
    angle: float
    depth: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Shapes on a textured ground. Phases and light are linear in the place, as rows (at 0, along x, along y).

    Args:
        shapes: the first is the main one, the largest by far.
        ground: colours of the ground and of the waves on it, ``(2, 3)`` to 255.
        waves: phases of the texture's waves, ``(4, 3)``.
        light: brightness, ``(3,)``.
        noise: standard deviation of each pixel's noise, of 255.
        key: of the noise.
    """

    shapes: tuple[Shape, ...]
    ground: NDArray[np.float64]
    waves: NDArray[np.float64]
    light: NDArray[np.float64]
    noise: float
    key: tuple[int, ...]

    def seen_through(self, x: float, y: float, side: float, mirrored: bool = False) -> Scene:
        """The scene in a square window with its upper left corner at (x, y), perhaps mirrored left to right; shapes
        partly or wholly outside it stay."""
        start, sign = (x + side, -1) if mirrored else (x, 1)
        map_ = np.array([[1, 0, 0], [start, sign * side, 0], [y, 0, side]])  # columns: at 0, along x, along y

        def moved(shape: Shape) -> Shape:
            angle = math.pi - shape.angle if mirrored else shape.angle
            angle = angle % TURN[shape.kind] if TURN[shape.kind] else 0.0
            x_seen, y_seen = sign * (shape.x - start) / side, (shape.y - y) / side
            return replace(shape, x=x_seen, y=y_seen, size=shape.size / side, angle=angle)

        shapes = tuple(moved(shape) for shape in self.shapes)
        return replace(self, shapes=shapes, waves=self.waves @ map_, light=self.light @ map_)


class RenderedScene(NamedTuple):
    """A rendered scene.

    Args:
        image: ``(S, S, 3)`` uint8.
        mask: ``(S, S)`` int64: 0 is the ground, ``1 + kind`` the nearest shape's class.
        depth: ``(S, S)`` float32: the nearest shape's depth; 1 on the ground.
        visible: pixels of each of the scene's shapes that nothing hides, ``(shapes,)``.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.int64]
    depth: NDArray[np.float32]
    visible: NDArray[np.int64]


def scene(seed: int, index: int) -> Scene:
    """The scene ``index`` of the set ``seed``: a main shape, fully inside, and one to five lesser ones anywhere."""
    rng = stream(seed, index, *_UNUSED)
    count = int(rng.integers(2, MOST + 1))
    kinds, colors = rng.integers(len(KINDS), size=count).tolist(), rng.integers(len(COLORS), size=count).tolist()
    u = rng.random((count, 5))
    size = 0.12 + 0.14 * u[:, 0]
    size[0] = 0.4 + 0.25 * u[0, 0]
    u[0, 1:3] = size[0] / 2 + (1 - size[0]) * u[0, 1:3]
    rgb = (_RGB[colors] + rng.normal(0, 12, (count, 3))).clip(0, 255)
    shapes = tuple(
        Shape(kind, color, x, y, across, angle * TURN[kind], depth, (r, g, b))
        for kind, color, across, (_, x, y, angle, depth), (r, g, b) in zip(
            kinds, colors, size.tolist(), u.tolist(), rgb.tolist(), strict=True
        )
    )
    grey, tint = rng.uniform(50, 205, (2, 1)), rng.normal(0, 28, (2, 3))  # never as colourful as a shape
    turn, pitch = rng.uniform(0, 2 * math.pi, (2, _WAVES))
    pitch = 8 + 7 * pitch  # radians over the whole side: one to eight waves
    waves = np.stack([rng.uniform(0, 2 * math.pi, _WAVES), pitch * np.cos(turn), pitch * np.sin(turn)], axis=1)
    slope, whole = rng.uniform(-0.4, 0.4, 2), rng.uniform(0.75, 1.15)
    light = np.array([whole - slope.sum() / 2, *slope])
    return Scene(shapes, (grey + tint).clip(0, 255), waves, light, rng.uniform(2, 14), (seed, index))


def render(scene: Scene, size: int, supersample: int = 4) -> RenderedScene:
    """Draw a scene.

    Args:
        scene: to draw.
        size: side of the picture, in pixels.
        supersample: points along a pixel's side that edges are smoothed with.
    """
    owners = _owners(scene, size * supersample)
    middle = owners[supersample // 2 :: supersample, supersample // 2 :: supersample]
    kinds = np.array([0, *(1 + shape.kind for shape in scene.shapes)])
    depths = np.array([1, *(shape.depth for shape in scene.shapes)], dtype=np.float32)
    image = _lit(scene, _flat(scene, owners, supersample))
    visible = np.bincount(middle.ravel(), minlength=len(kinds))[1:]
    return RenderedScene(image, kinds[middle], depths[middle], visible)


def box(shape: Shape, size: int) -> tuple[float, float, float, float]:
    """The pixels around what lies in the picture of a shape, hidden parts too: left, top, right, bottom."""
    start = _outline(shape)
    step = np.roll(start, -1, axis=0) - start
    step = np.where(step == 0, np.finfo(float).tiny, step)
    with np.errstate(over="ignore"):
        enters, leaves = np.sort([-start / step, (1 - start) / step], axis=0)  # each side of the outline, along x and y
    first, last = enters.max(1, keepdims=True).clip(0, None), leaves.min(1, keepdims=True).clip(None, 1)
    ends = np.stack([start + first * step, start + last * step])[:, (first <= last)[:, 0]]
    corners = [corner for corner in itertools.product((0, 1), (0, 1)) if _within(corner, start, step)]
    points = np.concatenate([ends.reshape(-1, 2), np.reshape(corners, (-1, 2))]) * size
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return left, top, right, bottom


def _within(point: tuple[int, int], start: NDArray[np.float64], step: NDArray[np.float64]) -> bool:
    """Whether a point is inside an outline: a line from it to the right crosses an odd number of its sides."""
    crossed = (start[:, 1] > point[1]) != (start[:, 1] + step[:, 1] > point[1])
    at = start[crossed, 0] + (point[1] - start[crossed, 1]) / step[crossed, 1] * step[crossed, 0]
    return bool((at > point[0]).sum() % 2)


def _owners(scene: Scene, side: int) -> NDArray[np.uint8]:
    """Which shape is nearest at each point, from 1; 0 is the ground."""
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for number in sorted(range(len(scene.shapes)), key=lambda n: -scene.shapes[n].depth):
        points = _outline(scene.shapes[number]) * side - 0.5
        draw.polygon(points.ravel().tolist(), fill=number + 1)
    return np.asarray(canvas)


def _flat(scene: Scene, owners: NDArray[np.uint8], supersample: int) -> NDArray[np.float32]:
    """Ground and shapes in their own colours, ``(S, S, 3)``: only edges are computed at every point."""
    size = len(owners) // supersample
    palette = np.zeros((len(scene.shapes) + 1, 4), np.uint8)  # black and clear where there is no shape
    haze = scene.ground.mean(0)
    for number, shape in enumerate(scene.shapes, start=1):
        palette[number] = (*(np.array(shape.rgb) + _HAZE * shape.depth * (haze - shape.rgb)), 255)
    points = palette.view(np.uint32)[:, 0][owners].view(np.uint8)
    fine = Image.frombuffer("CMYK", (len(owners),) * 2, points, "raw", "CMYK", 0, 1)  # any four channels
    drawn = np.asarray(fine.reduce(supersample), dtype=np.float32)
    at = ((np.arange(size) + 0.5) / size)[None]
    phase, along_x, along_y = scene.waves.T[:, :, None]
    ax, ay = phase + along_x * at, along_y * at
    waves = (np.sin(ay).T @ np.cos(ax) + np.cos(ay).T @ np.sin(ax)) / _WAVES  # sin(ay + ax), summed over the waves
    waves = waves.astype(np.float32)[:, :, None]
    base, crest = scene.ground.astype(np.float32)
    ground = base + (0.5 + waves).clip(0, 1) * (crest - base)
    return drawn[:, :, :3] + (1 - drawn[:, :, 3:] / 255) * ground


def _lit(scene: Scene, flat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``flat`` under the scene's light, with its noise."""
    at = ((np.arange(len(flat)) + 0.5) / len(flat)).astype(np.float32)
    whole, along_x, along_y = scene.light.astype(np.float32)
    light = whole + along_x * at[None, :] + along_y * at[:, None]
    noise = stream(*scene.key, 0, *_UNUSED).standard_normal(flat.shape, dtype=np.float32)
    return (flat * light[:, :, None] + np.float32(scene.noise) * noise).clip(0, 255).astype(np.uint8)


def _outline(shape: Shape) -> NDArray[np.float64]:
    """Corners of a shape in the picture, ``(P, 2)``."""
    c, s = math.cos(shape.angle), math.sin(shape.angle)
    turn = np.array([[c, s], [-s, c]]) * (shape.size / 2)
    return _OUTLINES[shape.kind] @ turn + (shape.x, shape.y)


def _arc(start: float, end: float, count: int = 64) -> NDArray[np.float64]:
    angles = np.linspace(start, end, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _outlines() -> list[NDArray[np.float64]]:
    """Corners of each kind in the unit circle, ``(P, 2)``, each its own mirror image about the x axis."""
    around = _arc(0, 2 * math.pi)
    star = _arc(0, 2 * math.pi, 11)[:-1] * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    a, b = 0.32, math.sqrt(1 - 0.32**2)
    cross = [(b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a), (-a, -b), (a, -b), (a, -a)]
    bar = [(0.94, -0.34), (0.94, 0.34), (-0.94, 0.34), (-0.94, -0.34)]
    return [
        around,
        np.concatenate([around, 0.55 * around[::-1]]),
        _arc(-math.pi / 2, math.pi / 2),
        _arc(0, 2 * math.pi, 4)[:-1],
        _arc(math.pi / 4, 9 * math.pi / 4, 5)[:-1],
        np.array(bar),
        np.array(cross),
        star,
    ]


_OUTLINES = _outlines()
