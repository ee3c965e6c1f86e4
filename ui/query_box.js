// The box on the photo: drawn with mouse, touch or pen, or given in numbers. Fractions of the photo as it is seen.
const createBox = ({ stage, frame, fields, changed, say }) => {
  const LEAST = 0.02; // of the photo: a smaller one is a click
  const DIGITS = 1e4;
  let box = null, start = null;

  const fraction = (offset, side) => Math.min(1, Math.max(0, offset / side));
  const pointOf = (event) => {
    const seen = stage.getBoundingClientRect();
    return [fraction(event.clientX - seen.left, seen.width), fraction(event.clientY - seen.top, seen.height)];
  };
  // Edges are rounded, not sides, so that no box leaves the photo.
  const between = ([x, y], [x2, y2]) => {
    const [left, right] = [x, x2].sort((a, b) => a - b).map((edge) => Math.round(edge * DIGITS));
    const [top, bottom] = [y, y2].sort((a, b) => a - b).map((edge) => Math.round(edge * DIGITS));
    return [left / DIGITS, top / DIGITS, (right - left) / DIGITS, (bottom - top) / DIGITS];
  };
  const show = (shown) => {
    frame.hidden = !shown;
    const [left, top, width, height] = (shown || [0, 0, 1, 1]).map((one) => 100 * one);
    Object.assign(frame.style, { left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%` });
    fields.forEach((field, place) => (field.value = +[left, top, width, height][place].toFixed(1)));
  };

  stage.addEventListener("pointerdown", (event) => {
    if (!stage.classList.contains("m-drawable") || event.button !== 0 || !event.isPrimary) return;
    event.preventDefault();
    start = pointOf(event);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => start && show(between(start, pointOf(event))));
  stage.addEventListener("pointercancel", () => {
    start = null;
    show(box);
  });
  stage.addEventListener("pointerup", (event) => {
    if (!start) return;
    const drawn = between(start, pointOf(event));
    start = null;
    if (Math.min(drawn[2], drawn[3]) < LEAST) {
      show(box);
      say("That was a click: hold and drag across the garment to draw a box.");
    } else {
      box = drawn;
      show(box);
      changed(box);
    }
  });
  for (const field of fields)
    field.addEventListener("change", () => {
      const [left, top, width, height] = fields.map((one) => (one.value === "" ? NaN : one.valueAsNumber / 100));
      const isInside = left >= 0 && top >= 0 && width >= LEAST && height >= LEAST && left + width < 1.001 && top + height < 1.001;
      if (!isInside) return say("This box leaves the photo: left and width, like top and height, come to 100 at most, and no side is below 2.");
      box = between([left, top], [Math.min(1, left + width), Math.min(1, top + height)]);
      show(box);
      changed(box);
    });

  return {
    // Shows a box, without asking; null for none.
    set(value) {
      box = value;
      start = null;
      show(box);
    },
    get value() { return box; },
  };
};
