// Sends what is chosen or dropped, a few files at a time, and triggers "start" once it is held.
const AT_ONCE = 4, PAUSE_MS = 2000, MOST = 20000, SHOWN = 3;
const PHOTO = /\.(jpe?g|jpe|png|webp|gif|bmp|tiff?|heic|avif)$/i;
const SYSTEM = /(^|\/)(\.|__MACOSX\/|Thumbs\.db$|desktop\.ini$)/i;
const drop = element.querySelector(".m-batch-drop");
const sending = element.querySelector(".m-batch-sending");
const bar = sending.querySelector("progress");
const say = sending.querySelector("[data-sent]");
let stop = null;

for (const input of element.querySelectorAll("[data-input]")) {
  element.querySelector(`[data-choose=${input.dataset.input}]`).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    send([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })));
    input.value = "";
  });
}
sending.querySelector("[data-stop]").addEventListener("click", () => stop?.abort());

for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => {
  event.preventDefault();
  drop.classList.add("m-over");
});
drop.addEventListener("dragleave", (event) => drop.contains(event.relatedTarget) || drop.classList.remove("m-over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  event.stopPropagation();
  drop.classList.remove("m-over");
  // Entries must be taken before anything is waited for.
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...event.dataTransfer.files];
  send(entries.length ? await within(entries) : files.map((file) => ({ file, name: file.name })));
});

// The files of entries, those in folders included.
async function within(entries) {
  const found = [], left = [...entries];
  while (left.length && found.length <= MOST) {
    const entry = left.shift();
    if (entry.isFile) {
      const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
      if (file) found.push({ file, name: entry.fullPath.replace(/^\//, "") });
    } else {
      const reader = entry.createReader();
      // A reader gives a hundred at a time, and none when it is through.
      for (;;) {
        const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
        if (!some.length) break;
        left.push(...some);
      }
    }
  }
  return found;
}

// What is worth sending, and what is not, by reason.
function sort(chosen) {
  const wanted = [], skipped = new Map();
  const skip = (reason, name) => {
    const one = skipped.get(reason) || { reason, count: 0, names: [] };
    one.count += 1;
    if (one.names.length < SHOWN) one.names.push(name);
    skipped.set(reason, one);
  };
  for (const one of chosen) {
    if (SYSTEM.test(one.name)) skip("files of the system", one.name);
    else if (!PHOTO.test(one.name) && !/\.zip$/i.test(one.name) && !one.file.type.startsWith("image/")) skip("no photos", one.name);
    else if (wanted.length >= MOST) skip(`more than the ${MOST.toLocaleString("en")} photos of a batch; send the rest as another one`, one.name);
    else wanted.push(one);
  }
  return { wanted, skipped: [...skipped.values()] };
}

async function send(chosen) {
  if (!chosen.length || stop) return;
  const { wanted, skipped } = sort(chosen);
  if (!wanted.length) return modiste.say("There is no photo and no zip among these files; JPEG, PNG and WEBP are read.");
  stop = new AbortController();
  sending.hidden = false;
  drop.hidden = true;
  const files = new Array(wanted.length);
  let sent = 0, next = 0, waits = "";
  const show = () => {
    say.textContent = waits || `${sent.toLocaleString("en")} of ${wanted.length.toLocaleString("en")} sent`;
    bar.max = wanted.length;
    bar.value = sent;
  };
  const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  const sendOne = async ({ file, name }) => {
    for (;;) {
      try {
        const { token } = await modiste.upload(file, stop.signal);
        waits = "";
        return { name, token };
      } catch (error) {
        if (stop.signal.aborted) throw error;
        if (!error.isAway) return { name, error: error.message };
        waits = `${error.message} Trying again.`;
        show();
        await pause();
      }
    }
  };
  const line = async () => {
    while (next < wanted.length && !stop.signal.aborted) {
      const place = next++;
      files[place] = await sendOne(wanted[place]);
      sent += 1;
      show();
    }
  };
  show();
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, line));
  } catch {
    // Cancelled: what was sent is labelled.
  }
  stop = null;
  sending.hidden = true;
  drop.hidden = false;
  const held = files.filter(Boolean);
  if (!held.length) return;
  props.value = { files: held, skipped };
  trigger("start");
}
