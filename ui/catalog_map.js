// The map: draws points on a canvas, and asks for those of the view whenever it has moved to where some were left out.
// Six colours that everybody can tell apart (Okabe and Ito, 2008), each as a disc and as a diamond: twelve labels.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];
const COLOURED = 2 * COLOURS.length;
const SETTLED_MS = 180, CARD_MS = 140, NEAR_PX = 14, MOST_ZOOM = 400, STEP = 1.5, LISTED = 12;
const find = (selector) => element.querySelector(selector);
const stage = find(".m-map-stage"), canvas = find("canvas"), card = find(".m-map-card");
const paint = canvas.getContext("2d");
let width = 0, height = 0;
let data = null, target = null, area = null;
let view = { x: 0.5, y: 0.5, zoom: 1 };
let near = -1, isKeyed = false, asking = 0;
const bright = new Set(); // places of the labels that are highlighted
const items = new Map();

// Where there are points at all: x, y, width, height of the map.
let extent = [0, 0, 1, 1];
const scale = () => 0.9 * Math.min(width / extent[2], height / extent[3]) * view.zoom;
const home = () => ({ x: extent[0] + extent[2] / 2, y: extent[1] + extent[3] / 2, zoom: 1 });
const isHome = () => Object.entries(home()).every(([name, value]) => view[name] === value);
const measure = () => {
  const range = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [1, 0]);
  const [[x0, x1], [y0, y1]] = [range(data.x), range(data.y)];
  return data.x.length ? [x0, y0, Math.max(0.05, x1 - x0), Math.max(0.05, y1 - y0)] : [0, 0, 1, 1];
};
const left = (x) => width / 2 + (x - view.x) * scale();
const top = (y) => height / 2 + (y - view.y) * scale();
const make = (tag, text, fields = {}) => Object.assign(document.createElement(tag), { textContent: text, ...fields });
const photo = (id) => `/photos/${encodeURIComponent(id)}?size=160`;
const number = (count) => count.toLocaleString("en");

// What is seen, with a margin that a small move stays in: x, y, width, height, or null for all of it.
const seen = (margin) => {
  const [w, h] = [(width / scale()) * (1 + margin), (height / scale()) * (1 + margin)];
  const [x0, y0] = [Math.max(0, view.x - w / 2), Math.max(0, view.y - h / 2)];
  const [x1, y1] = [Math.min(1, view.x + w / 2), Math.min(1, view.y + h / 2)];
  const isWhole = x0 <= extent[0] && y0 <= extent[1] && x1 >= extent[0] + extent[2] && y1 >= extent[1] + extent[3];
  return isWhole ? null : [x0, y0, Math.max(1e-4, x1 - x0), Math.max(1e-4, y1 - y0)];
};
const isWithin = (inner, outer) =>
  !outer || (inner && inner[0] >= outer[0] && inner[1] >= outer[1] && inner[0] + inner[2] <= outer[0] + outer[2] && inner[1] + inner[3] <= outer[1] + outer[3]);

const ask = async () => {
  const mine = ++asking, asked = seen(0.3), colour = target;
  canvas.dataset.state = "asking";
  const answer = await server.points({ target: colour, view: asked }).catch(() => ({ detail: "The page's server cannot be reached; is it still running?" }));
  if (mine !== asking) return; // a newer question is under way
  canvas.dataset.state = "drawn";
  const empty = find(".m-map-empty");
  empty.hidden = !answer.detail;
  find(".m-map").classList.toggle("m-is-empty", Boolean(answer.detail));
  if (answer.detail) {
    data = null;
    empty.textContent = answer.is_missing
      ? "There is no map of this catalog yet. Draw it: photos that look alike will lie close to each other."
      : answer.detail;
    return draw();
  }
  if (data?.labels.join("\n") !== answer.labels.join("\n")) bright.clear();
  const shown = near >= 0 ? data.item_ids[near] : null;
  data = answer;
  area = asked;
  if (area === null && isHome()) {
    extent = measure();
    Object.assign(view, home());
  }
  near = shown === null ? -1 : data.item_ids.indexOf(shown);
  if (near < 0) hide();
  legend();
  tell();
  draw();
};
const settle = () => {
  clearTimeout(settle.next);
  settle.next = setTimeout(() => {
    if (!data) return;
    const isWhole = data.total <= data.item_ids.length;
    if (!(isWhole && isWithin(seen(0), area))) ask();
    else tell();
  }, SETTLED_MS);
};
const move = (change) => {
  Object.assign(view, change);
  view.zoom = Math.min(MOST_ZOOM, Math.max(1, view.zoom));
  view.x = Math.min(1, Math.max(0, view.x));
  view.y = Math.min(1, Math.max(0, view.y));
  hide();
  draw();
  settle();
};
// Zooms so that what lies at a place of the canvas stays there.
const zoom = (factor, px = width / 2, py = height / 2) => {
  const [x, y] = [view.x + (px - width / 2) / scale(), view.y + (py - height / 2) / scale()];
  const next = Math.min(MOST_ZOOM, Math.max(1, view.zoom * factor));
  const ratio = view.zoom / next;
  move({ zoom: next, x: x + (view.x - x) * ratio, y: y + (view.y - y) * ratio });
};

const draw = () => {
  cancelAnimationFrame(draw.next);
  draw.next = requestAnimationFrame(drawNow);
};
const drawNow = () => {
  const ratio = devicePixelRatio || 1;
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
  paint.clearRect(0, 0, width, height);
  canvas.dataset.zoom = view.zoom.toFixed(2);
  canvas.dataset.points = data ? data.item_ids.length : 0;
  canvas.dataset.total = data ? data.total : 0;
  canvas.dataset.target = target ?? "";
  if (!data) return;
  const style = getComputedStyle(element);
  const grey = style.getPropertyValue("--body-text-color-subdued") || "#888";
  const count = data.item_ids.length;
  const radius = Math.min(7, (count > 2000 ? 2.4 : count > 600 ? 3 : 4) + 0.5 * Math.log2(view.zoom));
  const groups = new Map();
  for (let place = 0; place < count; place++) {
    const px = left(data.x[place]), py = top(data.y[place]);
    if (px < -9 || py < -9 || px > width + 9 || py > height + 9) continue;
    const label = data.label_of[place];
    const group = label >= 0 && (label < COLOURED || bright.has(label)) ? label : -1;
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(px, py);
  }
  let visible = 0;
  for (const group of [...groups.keys()].sort((one, two) => bright.has(one) - bright.has(two) || (one < 0 ? -1 : two < 0 ? 1 : two - one))) {
    const places = groups.get(group);
    visible += places.length / 2;
    paint.globalAlpha = bright.size && !bright.has(group) ? 0.12 : group < 0 ? 0.35 : 0.85;
    paint.fillStyle = group < 0 ? grey : COLOURS[group % COLOURS.length];
    paint.beginPath();
    for (let at = 0; at < places.length; at += 2) shape(paint, group, places[at], places[at + 1], group < 0 ? 0.8 * radius : radius);
    paint.fill();
  }
  canvas.dataset.visible = visible;
  paint.globalAlpha = 1;
  if (isKeyed) cross(style);
  if (near >= 0) ring(style, radius);
};
const shape = (on, group, x, y, radius) => {
  if (group < COLOURS.length) {
    on.moveTo(x + radius, y);
    return on.arc(x, y, radius, 0, 2 * Math.PI);
  }
  const side = 1.35 * radius;
  on.moveTo(x, y - side);
  on.lineTo(x + side, y);
  on.lineTo(x, y + side);
  on.lineTo(x - side, y);
  on.closePath();
};
const ring = (style, radius) => {
  paint.strokeStyle = style.getPropertyValue("--body-text-color") || "#000";
  paint.lineWidth = 2;
  paint.beginPath();
  paint.arc(left(data.x[near]), top(data.y[near]), radius + 4, 0, 2 * Math.PI);
  paint.stroke();
};
const cross = (style) => {
  paint.strokeStyle = style.getPropertyValue("--body-text-color") || "#000";
  paint.lineWidth = 1;
  paint.beginPath();
  paint.moveTo(width / 2 - 9, height / 2);
  paint.lineTo(width / 2 + 9, height / 2);
  paint.moveTo(width / 2, height / 2 - 9);
  paint.lineTo(width / 2, height / 2 + 9);
  paint.stroke();
};

// The place of the point nearest to a place of the canvas, or -1 where none is near enough.
const nearest = (px, py, limit = Infinity) => {
  let best = -1, least = limit * limit;
  for (let place = 0; place < (data?.item_ids.length ?? 0); place++) {
    const dx = left(data.x[place]) - px, dy = top(data.y[place]) - py;
    const distance = dx * dx + dy * dy;
    if (distance < least) [best, least] = [place, distance];
  }
  return best;
};
const hide = () => {
  clearTimeout(show.next);
  near = -1;
  card.hidden = true;
};
// Shows the card of a point; one that is pinned can be pressed.
const show = (place, isPinned) => {
  if (place < 0) {
    if (near >= 0) (hide(), draw());
    return;
  }
  if (place === near && !card.hidden) return;
  near = place;
  const id = data.item_ids[place];
  card.replaceChildren(make("img", "", { src: photo(id), alt: "" }), make("strong", id));
  const labels = make("dl", "");
  const fallback = data.label_of[place] >= 0 ? [[target, data.labels[data.label_of[place]]]] : [];
  fillLabels(labels, items.get(id) ?? fallback);
  card.append(labels);
  if (isPinned) {
    const search = make("button", "Find similar", { type: "button", className: "m-button m-primary" });
    search.dataset.search = id;
    card.append(search);
  }
  card.classList.toggle("m-pinned", isPinned);
  card.dataset.item = id;
  card.hidden = false;
  const px = left(data.x[place]), py = top(data.y[place]);
  const x = px + 18 + card.offsetWidth > width ? px - 18 - card.offsetWidth : px + 18;
  card.style.left = Math.max(4, Math.min(width - card.offsetWidth - 4, x)) + "px";
  card.style.top = Math.max(4, Math.min(height - card.offsetHeight - 4, py - card.offsetHeight / 2)) + "px";
  clearTimeout(show.next);
  if (!items.has(id)) show.next = setTimeout(() => detail(id, labels), CARD_MS);
  draw();
};
const fillLabels = (list, labels) => list.replaceChildren(...labels.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
const detail = async (id, list) => {
  const answer = await server.item(id).catch(() => null);
  if (!answer?.labels) return;
  items.set(id, answer.labels);
  fillLabels(list, answer.labels);
};

// Which label has which mark; pressing one highlights it.
const legend = () => {
  const counts = countLabels();
  const shown = data.labels.slice(0, COLOURED).map((name, label) => {
    const button = make("button", "", { type: "button" });
    button.setAttribute("aria-pressed", String(bright.has(label)));
    button.append(mark(label), make("span", name, { title: name }), make("small", number(counts.get(label) ?? 0)));
    button.addEventListener("click", () => {
      if (!bright.delete(label)) bright.add(label);
      button.setAttribute("aria-pressed", String(bright.has(label)));
      draw();
    });
    return button;
  });
  const others = data.labels.length - COLOURED;
  if (others > 0) shown.push(make("span", `${number(others)} more labels in grey`, { className: "m-quiet" }));
  find(".m-legend").replaceChildren(...shown.map((one) => {
    const entry = make("li", "");
    entry.append(one);
    return entry;
  }));
};
const mark = (label) => {
  const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  box.setAttribute("viewBox", "-7 -7 14 14");
  box.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", label < COLOURS.length ? "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z" : "M0 -6.5L6.5 0L0 6.5L-6.5 0Z");
  path.setAttribute("fill", COLOURS[label % COLOURS.length]);
  box.append(path);
  return box;
};
const countLabels = () => {
  const counts = new Map();
  for (const label of data.label_of) counts.set(label, (counts.get(label) ?? 0) + 1);
  return counts;
};

// The view in words, and its middle as a list, for those who do not see the canvas.
const tell = () => {
  const inView = data.item_ids.map((_, place) => place).filter((place) => {
    const px = left(data.x[place]), py = top(data.y[place]);
    return px >= 0 && py >= 0 && px <= width && py <= height;
  });
  const counts = new Map();
  for (const place of inView) counts.set(data.label_of[place], (counts.get(data.label_of[place]) ?? 0) + 1);
  counts.delete(-1);
  const most = [...counts].sort((one, two) => two[1] - one[1]).slice(0, 3);
  const often = most.map(([label, count]) => `${data.labels[label]} (${number(count)})`).join(", ");
  find("#map-summary").textContent = often ? `Most frequent in this view: ${often}.` : "";
  find(".m-map-count").textContent = `${number(data.item_ids.length)} of ${number(data.total)} shown`;
  const missing = find(".m-map-missing");
  missing.hidden = !data.missing;
  missing.textContent = data.missing === 1
    ? "1 item came after this map was drawn and is not on it. Draw it again to see it."
    : `${number(data.missing)} items came after this map was drawn and are not on it. Draw it again to see them.`;
  const middle = (place) => Math.hypot(left(data.x[place]) - width / 2, top(data.y[place]) - height / 2);
  const listed = inView.sort((one, two) => middle(one) - middle(two)).slice(0, LISTED);
  find(".m-map-list ul").replaceChildren(...listed.map((place) => {
    const entry = make("li", ""), label = data.labels[data.label_of[place]];
    const button = make("button", data.item_ids[place] + (label ? `, ${label}` : ""), { type: "button", className: "m-link" });
    button.dataset.search = data.item_ids[place];
    entry.append(button);
    return entry;
  }));
};

// Pointers: one drags, two pinch.
const pointers = new Map();
let dragged = 0;
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, at(event));
  dragged = pointers.size > 1 ? 99 : 0;
  isKeyed = false;
});
canvas.addEventListener("pointermove", (event) => {
  const [px, py] = at(event), before = pointers.get(event.pointerId);
  if (!before) return event.pointerType === "mouse" ? show(nearest(px, py, NEAR_PX), false) : undefined;
  if (pointers.size === 1) {
    dragged += Math.hypot(px - before[0], py - before[1]);
    pointers.set(event.pointerId, [px, py]);
    if (dragged > 4) move({ x: view.x - (px - before[0]) / scale(), y: view.y - (py - before[1]) / scale() });
    return;
  }
  const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
  const spread = Math.hypot(before[0] - other[0], before[1] - other[1]) || 1;
  pointers.set(event.pointerId, [px, py]);
  zoom(Math.hypot(px - other[0], py - other[1]) / spread, (px + other[0]) / 2, (py + other[1]) / 2);
});
canvas.addEventListener("pointerup", (event) => {
  const isClick = pointers.delete(event.pointerId) && dragged <= 4;
  if (!isClick || !data) return;
  const place = nearest(...at(event), event.pointerType === "mouse" ? NEAR_PX : 2 * NEAR_PX);
  if (event.pointerType !== "mouse") (hide(), show(place, true));
  else if (place >= 0) modiste.search(data.item_ids[place]);
});
canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !isKeyed && (hide(), draw()));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 180), ...at(event));
}, { passive: false });
canvas.addEventListener("dblclick", (event) => event.preventDefault());

const keys = {
  ArrowLeft: () => move({ x: view.x - 60 / scale() }),
  ArrowRight: () => move({ x: view.x + 60 / scale() }),
  ArrowUp: () => move({ y: view.y - 60 / scale() }),
  ArrowDown: () => move({ y: view.y + 60 / scale() }),
  "+": () => zoom(STEP),
  "=": () => zoom(STEP),
  "-": () => zoom(1 / STEP),
  0: () => move(home()),
};
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && data) {
    event.stopPropagation();
    const place = near >= 0 ? near : nearest(width / 2, height / 2);
    if (place >= 0) modiste.search(data.item_ids[place]);
    return;
  }
  if (!keys[event.key]) return;
  event.preventDefault();
  isKeyed = true;
  keys[event.key]();
  show(nearest(width / 2, height / 2, 90), true);
});
canvas.addEventListener("blur", () => ((isKeyed = false), draw()));
element.addEventListener("click", (event) => {
  const press = { in: () => zoom(STEP), out: () => zoom(1 / STEP), all: keys[0] }[event.target.closest("[data-map]")?.dataset.map];
  if (press) press();
});

new ResizeObserver(() => {
  const ratio = devicePixelRatio || 1;
  [width, height] = [stage.clientWidth, stage.clientHeight];
  if (!width) return;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const shown = near;
  hide();
  show(shown, card.classList.contains("m-pinned"));
  draw();
  settle();
}).observe(stage);
new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });

modiste.map = {
  colour(name) {
    if (name === target && data) return;
    target = name || null;
    bright.clear();
    if (element.offsetParent) ask();
  },
  // Where an item is on the canvas, in pixels of the page; for tests.
  place(id) {
    const place = data?.item_ids.indexOf(id) ?? -1, box = canvas.getBoundingClientRect();
    return place < 0 ? null : [box.left + left(data.x[place]), box.top + top(data.y[place])];
  },
  ids: () => data?.item_ids ?? [],
};
// The job has a component of its own, which may not be there yet.
const lookAtJob = () => {
  const job = modiste.parts["map-job"];
  if (!job) return setTimeout(lookAtJob, 50);
  job.over = ask;
  job.look();
};
(modiste.parts ??= {}).map = {
  look() {
    lookAtJob();
    ask();
  },
};
