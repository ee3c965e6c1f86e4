"""The drawn photo studio: background, camera, light, shadow; puts a garment's panels on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from data.cloth import Fabric, coloured, creased, fallen, feel, floral_tile, linear, noise
from data.outline import Button, Floats, Frame, Layer, Panel, Points

WIDTH, HEIGHT = 480, 640
BACKGROUNDS = ("white", "grey", "warm", "wood", "coloured")
# Masks are drawn this many times larger and reduced: Pillow's polygons have hard edges.
FINER = 3
# Light thrown back unchanged by the surface of each fabric.
GLOSS = {"satin": 0.5, "crepe": 0.09, "cotton": 0.08, "denim": 0.07, "wool": 0.07, "knit": 0.06}


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the garment lies in the picture.

    Args:
        matrix: (2, 2), pixels a cm: turns (x, y) cm into (column, row).
        shift: (2,) pixels.
        sway: (3,) cm and phases of a slow wobble, so that no outline is a perfect mirror of itself.
    """

    matrix: Points
    shift: Points
    sway: tuple[float, float, float]

    @property
    def per_cm(self) -> float:
        """Pixels a cm."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    def pixels(self, points: Points) -> Points:
        """(K, 2) pixels of (K, 2) cm."""
        size, first, second = self.sway
        wobble = np.stack(
            [np.sin(points[:, 1] * 0.11 + first), np.sin(points[:, 0] * 0.13 + second + points[:, 1] * 0.05)], axis=1
        )
        return (points + size * wobble) @ self.matrix.T + self.shift

    def cm(self, box: tuple[int, int, int, int]) -> tuple[Floats, Floats]:
        """The (H, W) x and y, cm, of the pixels in a box of (left, top, right, bottom)."""
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        columns = np.arange(box[0], box[2], dtype=np.float32)[None] + np.float32(0.5 - self.shift[0])
        rows = np.arange(box[1], box[3], dtype=np.float32)[:, None] + np.float32(0.5 - self.shift[1])
        return inverse[0, 0] * columns + inverse[0, 1] * rows, inverse[1, 0] * columns + inverse[1, 1] * rows


@dataclass(frozen=True, slots=True)
class Light:
    """The light: direction in the picture (x, y; from the upper left is negative), contrast 0..1, exposure, warmth."""

    x: float
    y: float
    contrast: float
    exposure: float
    warmth: float


def camera_for(layers: Sequence[Layer], rng: np.random.Generator, *, detail: bool) -> Camera:
    """A camera on the whole garment, a little turned and off centre; with `detail`, on its upper middle, close by."""
    outlines = np.vstack([layer.outline for layer in layers if isinstance(layer, Panel)])
    low, high = outlines.min(axis=0), outlines.max(axis=0)
    size, centre = high - low, (low + high) / 2
    scale = min(WIDTH * 0.86 / size[0], HEIGHT * 0.87 / size[1]) * rng.uniform(0.88, 1.0)
    if detail:
        scale *= rng.uniform(1.45, 1.8)
        centre = low + size * np.array([rng.uniform(0.44, 0.56), rng.uniform(0.28, 0.36)])
    turn, shear = rng.normal(0, 0.022), rng.normal(0, 0.015)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = scale * rotation @ np.array([[1.0, shear], [0.0, 1.0]])
    middle = np.array([WIDTH, HEIGHT]) / 2 + rng.normal(0, 0.008, 2) * HEIGHT
    sway = (rng.uniform(0.1, 0.32), rng.uniform(0, 6.28), rng.uniform(0, 6.28))
    return Camera(matrix, middle - matrix @ centre, sway)


def light_for(rng: np.random.Generator) -> Light:
    """Soft light from above and one side, mostly the left."""
    side = -1 if rng.random() < 0.75 else 1
    return Light(
        x=side * rng.uniform(0.35, 0.65),
        y=-rng.uniform(0.3, 0.55),
        contrast=rng.uniform(0.75, 1.1),
        exposure=float(np.exp(rng.normal(0, 0.05))),
        warmth=rng.normal(0, 0.018),
    )


def _box(points: Points, pad: float) -> tuple[int, int, int, int]:
    """The pixels around points, within the picture; empty boxes have no area."""
    low, high = np.floor(points.min(axis=0) - pad), np.ceil(points.max(axis=0) + pad)
    left, top = int(np.clip(low[0], 0, WIDTH)), int(np.clip(low[1], 0, HEIGHT))
    return left, top, int(np.clip(high[0], left, WIDTH)), int(np.clip(high[1], top, HEIGHT))


def _cut(points: Points, box: tuple[int, int, int, int]) -> Image.Image:
    """The mask of a polygon (K, 2) pixels in a box, smooth at its edge."""
    size = (box[2] - box[0]) * FINER, (box[3] - box[1]) * FINER
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([(x * FINER, y * FINER) for x, y in (points - np.array(box[:2])).tolist()], fill=255)
    return mask.reduce(FINER)


def _drawn(lines: list[Points], box: tuple[int, int, int, int], width: float, dash: float) -> Floats:
    """The (H, W) 0..1 mask of lines (K, 2) pixels, `width` pixels wide, broken every `dash` pixels (0: whole)."""
    mask = Image.new("L", ((box[2] - box[0]) * FINER, (box[3] - box[1]) * FINER))
    draw = ImageDraw.Draw(mask)
    thick = max(round(width * FINER), 1)
    for line in lines:
        at = (line - np.array(box[:2])) * FINER
        if dash <= 0:
            draw.line([tuple(point) for point in at.tolist()], fill=255, width=thick, joint="curve")
            continue
        reach = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(at, axis=0).T))])
        begins = np.arange(0, reach[-1], dash * FINER)
        for begin in begins.tolist():
            stops = np.array([begin, begin + dash * FINER * 0.62])
            x, y = np.interp(stops, reach, at[:, 0]), np.interp(stops, reach, at[:, 1])
            draw.line([(x[0], y[0]), (x[1], y[1])], fill=255, width=thick)
    return np.asarray(mask.reduce(FINER), dtype=np.float32) / np.float32(255)


def _blurred(mask: Image.Image, radius: float) -> Floats:
    """The mask, 0..1, out of focus."""
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / np.float32(255)


def _smoothed(height: Floats, radius: float) -> Floats:
    """The height (H, W) without anything narrower than a radius in pixels."""
    rows, columns = height.shape
    small = max(round(columns / radius), 1), max(round(rows / radius), 1)
    image = Image.fromarray(height).resize(small, Image.Resampling.BOX)
    return np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))


def _moved(mask: Image.Image, right: int, down: int) -> Image.Image:
    """The mask moved by pixels; its edge pixels fill what is left free."""
    data = (1, 0, -right, 0, 1, -down)
    wide = np.pad(np.asarray(mask), 24, mode="edge")
    moved = Image.fromarray(wide).transform(wide.shape[::-1], Image.Transform.AFFINE, data)
    return moved.crop((24, 24, 24 + mask.width, 24 + mask.height))


class Picture:
    """A photo in the making.

    Args:
        ground: (HEIGHT, WIDTH, 3) float32 linear light; the background, which is painted over.
        camera: Where things are.
        light: How they are lit.
        fabric: What the garment is made of.
        print_seed: Places a floral's flowers: the same in all photos of a product.
        rng: The accidents of this photo.
    """

    def __init__(
        self,
        ground: Floats,
        *,
        camera: Camera,
        light: Light,
        fabric: Fabric,
        print_seed: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        self.canvas = ground
        self.camera = camera
        self.light = light
        self.fabric = fabric
        self.rng = rng
        self.tile: NDArray[np.uint8] | None = None
        if fabric.pattern == "floral":
            self.tile = floral_tile(fabric, camera.per_cm, np.random.default_rng(print_seed))

    def drop_shadow(self, layers: Sequence[Layer], *, strength: float) -> None:
        """Darkens the background around the garment, away from the light; strength 0..1."""
        whole = Image.new("L", (WIDTH, HEIGHT))
        draw = ImageDraw.Draw(whole)
        for layer in layers:
            if isinstance(layer, Panel):
                draw.polygon([tuple(point) for point in self.camera.pixels(layer.outline).tolist()], fill=255)
        away = (round(-self.light.x * 13), round(-self.light.y * 15))
        near, far = _blurred(_moved(whole, away[0] // 3, away[1] // 3), 4), _blurred(_moved(whole, *away), 17)
        self.canvas *= (1 - np.float32(strength) * (np.float32(0.45) * near + np.float32(0.55) * far))[..., None]

    def paint(self, layers: Sequence[Layer]) -> None:
        """Lays the garment down, first layer first."""
        for layer in layers:
            if isinstance(layer, Panel):
                self._panel(layer)
            else:
                self._button(layer)

    def _panel(self, panel: Panel) -> None:
        """One piece of cloth with its shadow, pattern, folds and seams."""
        outline = self.camera.pixels(panel.outline)
        per_cm = self.camera.per_cm
        box = _box(outline, 6 + per_cm)
        if box[2] - box[0] < 3 or box[3] - box[1] < 3:
            return
        cut = _cut(outline, box)
        mask = np.asarray(cut, dtype=np.float32) / np.float32(255)
        view = self.canvas[box[1] : box[3], box[0] : box[2]]
        if panel.lift > 0:
            shadow = _blurred(_moved(cut, round(-self.light.x * per_cm * 0.7), round(per_cm * 0.4)), per_cm * 0.6)
            view *= (1 - np.float32(0.55 * panel.lift) * shadow)[..., None]
        x, y = self.camera.cm(box)
        frame = Frame.around(panel.outline, panel.grain, widening=panel.folds.fan > 0)
        s, t, u = frame.locate(x, y)
        height = fallen(panel.folds, u, s, span=(float(frame.along[0]), float(frame.along[-1])), rng=self.rng)
        creased(height, x, y, panel.creases)
        height += self._wrinkles(panel, mask.shape)
        # A pattern on a fold's flank is seen foreshortened.
        colour = self._dyed(panel, frame, (x, y), (s + height * np.float32(0.3), t + height * np.float32(0.45), u))
        lit, shine = self._lit(panel, frame, height, (s, u), _blurred(cut, max(per_cm * 0.8, 1.0)))
        colour = self._sewn(panel, box, colour * lit[..., None]) + shine[..., None]
        view += (colour - view) * mask[..., None]

    def _dyed(
        self, panel: Panel, frame: Frame, at: tuple[Floats, Floats], inside: tuple[Floats, Floats, Floats]
    ) -> Floats:
        """The panel's colours and texture, unlit, (H, W, 3)."""
        s, t, u = inside
        fabric, widest = self.fabric, float(frame.half.max())
        p = t + np.float32(panel.folds.fan) * (u * np.float32(widest * 0.75) - t)
        second = linear(fabric.second)
        flat: dict[str, Floats] = {
            "plain": linear(fabric.main),
            "rib": linear(fabric.main) * np.float32(0.96),
            "second": second if fabric.pattern != "plain" else linear(fabric.main) * np.float32(0.8),
            "inside": linear(fabric.main) * np.float32(0.5),
            "lining": linear(fabric.third) * np.float32(0.45),
            "label": linear((0.93, 0.92, 0.9)),
            "leather": linear((0.3, 0.2, 0.14)),
        }
        colour = flat.get(panel.cloth)
        if colour is None:
            colour = coloured(fabric, p, s, per_cm=self.camera.per_cm, tile=self.tile, depth=at[1])
        if fabric.kind == "denim" and panel.folds.joined > 0:
            # Jeans fade where they are worn: down the middle of the thighs.
            down = (s - np.float32(frame.along[0])) / np.float32(frame.along[-1] - frame.along[0])
            worn = np.exp(-np.square(u / np.float32(0.5)) - np.square((down - np.float32(0.42)) / np.float32(0.25)))
            colour = colour + (np.float32(0.75) - colour) * (np.float32(0.32 * fabric.variant) * worn)[..., None]
        kind = {"rib": "rib", "shell": fabric.kind, "plain": fabric.kind}.get(panel.cloth, "cotton")
        return colour * feel(kind, u.shape, p, s, self.rng)[..., None]

    def _wrinkles(self, panel: Panel, shape: tuple[int, ...]) -> Floats:
        """The height, cm, of irregular wrinkles: long soft ones along the grain, smaller ones over them."""
        depth, per_cm = panel.folds.wrinkle, self.camera.per_cm
        if depth <= 0:
            return np.zeros(shape, dtype=np.float32)
        stiff = {"denim": 0.8, "wool": 1.3, "knit": 1.25, "cotton": 0.9, "satin": 1.1, "crepe": 1.0}[self.fabric.kind]
        down, across = panel.grain, (panel.grain[1], -panel.grain[0])
        height = np.zeros(shape, dtype=np.float32)
        for wide, long, weight in ((6.5, 30.0, 1.35), (3.4, 9.0, 0.5)):
            slant = self.rng.uniform(-0.35, 0.35)
            kx, ky = 1 / (per_cm * wide * stiff), 1 / (per_cm * long * stiff)
            columns = ((across[0] + slant * down[0]) * kx, (across[1] + slant * down[1]) * kx, 0.0)
            bumps = noise((shape[0], shape[1]), columns, (down[0] * ky, down[1] * ky, 0.0), self.rng)
            # Rounded ridges with narrow valleys between them: cloth buckles, it does not undulate.
            height += np.float32(weight * depth) * (np.float32(0.5) * bumps - np.sqrt(bumps * bumps + np.float32(0.06)))
        return height

    def _lit(
        self, panel: Panel, frame: Frame, height: Floats, inside: tuple[Floats, Floats], solid: Floats
    ) -> tuple[Floats, Floats]:
        """The light that a panel's height (H, W) cm sends to the camera, and the gloss on top of it."""
        light, per_cm, (s, u) = self.light, np.float32(self.camera.per_cm), inside
        slope_y, slope_x = np.gradient(height)
        slope_x, slope_y = slope_x * per_cm, slope_y * per_cm
        square = u * u
        turning = np.float32(panel.folds.round) * (np.float32(0.42) * u + np.float32(0.55) * u * square * square)
        if panel.folds.joined > 0:
            # Above the crotch the two legs are one round body: only its outer side turns away.
            low = np.float32(frame.along[0] + panel.folds.joined * (frame.along[-1] - frame.along[0]))
            apart = np.clip((s - low) / np.float32(14) + np.float32(0.6), 0, 1)
            turning *= np.where(u * np.float32(frame.middle[0]) > 0, 1, apart)
        down = frame.grain
        # Surface normal: minus the slopes of the folds, plus the turning away of the sides.
        nx = -slope_x * np.float32(1.25) + turning * np.float32(down[1])
        ny = -slope_y * np.float32(1.25) - turning * np.float32(down[0])
        steep = 1 / np.sqrt(1 + nx * nx + ny * ny)
        toward = (
            np.float32(0.78) + np.float32(light.x * light.contrast) * nx + np.float32(light.y * light.contrast) * ny
        )
        shade = np.float32(0.36) + np.float32(0.82) * np.maximum(toward, 0) * steep
        # Light reaches the edge of a piece, which bends under, less.
        shade *= np.float32(0.8) + np.float32(0.2) * np.sqrt(np.clip(solid * 2 - 1, 0, 1))
        shade *= np.float32(light.exposure) * np.exp(
            np.minimum(height - _smoothed(height, self.camera.per_cm * 3), 0) * np.float32(0.55)
        )
        # Even black cotton shows its folds: some light is thrown back before it meets the dye.
        gloss = np.maximum(toward * steep - np.float32(0.5), 0)
        strength = 0.0 if panel.cloth in ("inside", "label", "lining") else GLOSS[self.fabric.kind]
        return shade, np.float32(strength) * gloss * gloss

    def _sewn(self, panel: Panel, box: tuple[int, int, int, int], colour: Floats) -> Floats:
        """The colours with the panel's seams and stitches."""
        per_cm = self.camera.per_cm
        kinds = {
            "seam": (0.26, 0.36),
            "edge": (0.3, 0.42),
            "stitch": (0.17, 0.42),
            "zip": (0.75, 0.6),
            "press": (0.5, 0.2),
        }
        for kind, (wide, dark) in kinds.items():
            lines = [self.camera.pixels(line.points) for line in panel.lines if line.kind == kind]
            if not lines:
                continue
            amount = _drawn(lines, box, max(wide * per_cm, 0.7), 0.75 * per_cm if kind == "stitch" else 0.0)
            if kind == "stitch":
                # The row of stitches pulls a shallow groove; the thread lies in it.
                groove = _drawn(lines, box, 0.5 * per_cm, 0.0)
                colour = colour * (1 - np.float32(0.13) * groove[..., None])
                colour = (
                    colour
                    + (linear(self.fabric.stitch) * np.float32(0.85) - colour) * (amount * np.float32(0.75))[..., None]
                )
                continue
            if kind != "press":
                lip = _drawn([line + np.array([0.35, 0.35]) * per_cm for line in lines], box, wide * per_cm, 0.0)
                colour = colour * (1 + np.float32(0.12) * lip[..., None])
            colour = colour * (1 - np.float32(dark) * amount[..., None])
        if any(line.kind == "zip" for line in panel.lines):
            teeth = [self.camera.pixels(line.points) for line in panel.lines if line.kind == "zip"]
            amount = _drawn(teeth, box, max(0.4 * per_cm, 1.0), 0.5 * per_cm)
            colour = colour + (np.float32(0.42) - colour) * (amount * np.float32(0.8))[..., None]
        return colour

    def _button(self, button: Button) -> None:
        """A small disc with a rim, holes and a shadow."""
        at = self.camera.pixels(np.array([[button.x, button.y]]))[0]
        radius = max(button.radius * self.camera.per_cm, 1.2)
        box = _box(at[None], radius * 2 + 2)
        if box[2] - box[0] < 3 or box[3] - box[1] < 3:
            return
        columns = np.arange(box[0], box[2], dtype=np.float32)[None] + np.float32(0.5 - at[0])
        rows = np.arange(box[1], box[3], dtype=np.float32)[:, None] + np.float32(0.5 - at[1])
        away = np.sqrt(columns**2 + rows**2)
        view = self.canvas[box[1] : box[3], box[0] : box[2]]
        below = np.sqrt((columns - 0.2 * radius) ** 2 + (rows - 0.35 * radius) ** 2)
        view *= (1 - np.float32(0.45) * np.clip(1.6 - below / np.float32(radius), 0, 1))[..., None]
        main = np.asarray(self.fabric.main, dtype=np.float32)
        tone = {
            "horn": main * np.float32(0.35) + np.float32(0.1),
            "pearl": np.array([0.93, 0.91, 0.87], dtype=np.float32),
        }
        tone |= {"metal": np.array([0.68, 0.6, 0.48], dtype=np.float32), "cloth": main * np.float32(0.85)}
        lit = np.float32(1) - np.float32(0.22) * (columns * self.light.x * -1 + rows) / np.float32(radius)
        rim = 1 - np.float32(0.25) * np.clip(1 - np.abs(away / np.float32(radius) - np.float32(0.72)) * 6, 0, 1)
        colour = np.square(tone[button.kind]) * (lit * rim).astype(np.float32)[..., None]
        if button.kind in ("horn", "pearl") and radius > 3:
            for hole_x, hole_y in ((-0.28, -0.28), (0.28, -0.28), (-0.28, 0.28), (0.28, 0.28)):
                to_hole = np.hypot(columns - np.float32(hole_x * radius), rows - np.float32(hole_y * radius))
                colour = (
                    colour * (1 - np.float32(0.6) * np.clip(np.float32(0.2 * radius + 0.5) - to_hole, 0, 1))[..., None]
                )
        view += (colour - view) * np.clip(np.float32(radius + 0.5) - away, 0, 1)[..., None]

    def developed(self) -> Image.Image:
        """The photo: warmth, a little sensor noise, sRGB."""
        warm = np.array([1 + self.light.warmth, 1, 1 - self.light.warmth], dtype=np.float32)
        photo = np.sqrt(np.clip(self.canvas * warm, 0, None))
        # Highlights roll off, as a camera's do.
        photo -= np.float32(0.2) * np.maximum(photo - np.float32(0.85), 0)
        photo += self.rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * np.float32(0.006)
        return Image.fromarray((np.clip(photo, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8))
