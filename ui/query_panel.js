// The photo or item that is asked about. Triggers "find" or "tell".
const panel = element.querySelector(".m-query");
const part = (name) => panel.querySelector(`[data-part=${name}]`);
const photo = part("photo");
const NOTHING = { token: null, item_id: null, box: null, name: "" };
const ASKED_IN = ["find", "label", "report"];
const READABLE = [/^\xff\xd8\xff/, /^\x89PNG/, /^RIFF....WEBP/s];
const UNREADABLE = [
  [/^%PDF/, "is a PDF: save the photo in it as JPEG or PNG"],
  [/^PK/, "is a zip: the Batch tab takes it"],
  [/^....ftyp(he|mif1|msf1)/s, "is a HEIC photo: save it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"],
  [/^....ftypavif/s, "is an AVIF photo: save it as JPEG or PNG"],
  [/^GIF8/, "is a GIF: save it as JPEG or PNG"],
];
let sending = null, address = null;

const say = (sentence) => {
  part("notice").textContent = sentence || "";
  part("notice").hidden = !sentence;
};
const box = createBox({
  stage: part("stage"),
  frame: part("box"),
  fields: [...part("numbers").querySelectorAll("input")],
  say,
  changed: (drawn) => {
    say("");
    part("reset").hidden = !drawn;
    props.value = { ...props.value, box: drawn };
    if (props.value.token) modiste.ask();
  },
});

// What a file is refused for before it is sent; null where the service may judge.
const whyNot = async (file) => {
  if (!file.size) return `'${file.name}' is empty, or a folder: choose a photo.`;
  if (file.size > panel.dataset.photoMb * 2 ** 20) return `'${file.name}' is larger than ${panel.dataset.photoMb} MB: send a smaller photo.`;
  let start;
  try {
    start = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  } catch {
    return `'${file.name}' cannot be read: choose a photo, not a folder.`;
  }
  if (READABLE.some((pattern) => pattern.test(start))) return null;
  const known = UNREADABLE.find(([pattern]) => pattern.test(start));
  return `'${file.name}' ${known ? known[1] : "is no photo that can be read: choose a JPEG, PNG or WEBP"}.`;
};

const show = (source, { name, isItem, region }) => {
  if (address) URL.revokeObjectURL(address);
  address = source?.startsWith("blob:") ? source : null;
  document.body.dataset.query = source ? (isItem ? "item" : "photo") : "";
  photo.alt = source ? (isItem ? `Photo of item ${name}` : `Your photo ${name}`) : "";
  if (source) photo.src = source;
  else photo.removeAttribute("src");
  part("stage").hidden = !source;
  part("empty").hidden = Boolean(source);
  part("name").hidden = !source;
  part("title").textContent = name;
  part("labels").textContent = "";
  part("stage").classList.toggle("m-drawable", Boolean(source) && !isItem);
  for (const one of ["hint", "numbers"]) part(one).hidden = !source || isItem;
  part("reset").hidden = !region;
  box.set(region || null);
};
photo.addEventListener("error", () => {
  if (!photo.hasAttribute("src")) return;
  part("stage").hidden = true;
  for (const one of ["hint", "numbers", "reset"]) part(one).hidden = true;
  say("The browser cannot show this photo.");
});

// Takes a photo, shows it at once, sends it, and asks.
const take = async (file) => {
  sending?.abort();
  const mine = (sending = new AbortController());
  panel.removeAttribute("aria-busy");
  const problem = await whyNot(file);
  if (mine.signal.aborted) return;
  if (problem) return say(problem);
  say("");
  props.value = { ...NOTHING, name: file.name };
  show(URL.createObjectURL(file), { name: file.name });
  panel.setAttribute("aria-busy", "true");
  try {
    const sent = await modiste.upload(file, mine.signal);
    props.value = { ...props.value, token: sent.token, box: box.value };
    modiste.ask();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  } finally {
    if (sending === mine) panel.removeAttribute("aria-busy");
  }
};

const describe = async (item_id) => {
  const labels = await server.describe(item_id).catch(() => "");
  if (props.value.item_id === item_id) part("labels").textContent = labels;
};

modiste.panel = {
  get value() { return props.value; },
  set(value) {
    sending?.abort();
    say("");
    props.value = { ...NOTHING, ...value };
    const { token, item_id, name } = props.value;
    if (item_id) {
      show(`/photos/${encodeURIComponent(item_id)}?size=512`, { name: name || item_id, isItem: true });
      describe(item_id);
    } else show(token ? `/uploads/${token}` : null, { name: name || "", region: props.value.box });
  },
  choose: () => part("file").click(),
  resetBox() {
    if (!props.value?.box) return;
    box.set(null);
    part("reset").hidden = true;
    props.value = { ...props.value, box: null };
    modiste.ask();
  },
  // Not "label": a component has an attribute of that name already.
  ask(tab) { trigger(tab === "label" ? "tell" : "find"); },
};

part("choose").addEventListener("click", modiste.panel.choose);
part("reset").addEventListener("click", modiste.panel.resetBox);
part("empty").addEventListener("click", modiste.panel.choose);
part("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) take(target.files[0]);
  target.value = "";
});
part("photograph").addEventListener("click", createCamera({
  dialog: part("camera"), video: part("video"), shoot: part("shoot"), leave: part("leave"), capture: part("capture"), take, say,
}));

const isHere = () => ASKED_IN.includes(modiste.tab);
const mark = (isOver) => document.body.classList.toggle("m-dragging", isOver);
document.addEventListener("dragover", (event) => {
  if (!isHere()) return;
  event.preventDefault();
  mark(true);
});
document.addEventListener("dragleave", (event) => event.relatedTarget || mark(false));
document.addEventListener("drop", (event) => {
  mark(false);
  if (!isHere() || event.defaultPrevented) return;
  event.preventDefault();
  const files = [...event.dataTransfer.files];
  if (files.length > 1) modiste.say("Only the first photo is asked about: the Batch tab takes many.");
  if (files.length) take(files[0]);
  else if (event.dataTransfer.types.includes("text/uri-list")) say("Pictures of other pages have to be copied and pasted, or saved and dropped.");
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (!file || !isHere()) return;
  event.preventDefault();
  take(file);
});
