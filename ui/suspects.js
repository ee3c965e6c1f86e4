// Relabels suspects, a click each, with a way back; triggers "turn" with where another page starts.
const KEPT = "modiste-kept", MOST_KEPT = 2000;
const kept = () => { try { return JSON.parse(localStorage.getItem(KEPT)) ?? []; } catch { return []; } };
const nameOf = ({ item, target, label }) => JSON.stringify([item, target, label]);
const settle = (row, sentence) => {
  row.classList.toggle("m-settled", Boolean(sentence));
  row.querySelector(".m-settled-text").textContent = sentence;
};
const setKept = (row, isKept) => {
  const others = kept().filter((name) => name !== nameOf(row.dataset));
  localStorage.setItem(KEPT, JSON.stringify(isKept ? [...others, nameOf(row.dataset)].slice(-MOST_KEPT) : others));
};
const relabel = async (row, label, sentence) => {
  const { item, target } = row.dataset;
  for (const control of row.querySelectorAll("button, input")) control.disabled = true;
  const refusal = await server.relabel({ item, target, label }).catch(() => "The page's server cannot be reached; is it still running?");
  for (const control of row.querySelectorAll("button, input")) control.disabled = false;
  if (refusal) return modiste.say(refusal);
  settle(row, sentence);
  row.querySelector(sentence ? "[data-do=undo]" : "[data-do=accept]").focus();
  modiste.look();
};
const actions = {
  accept: (row) => relabel(row, row.dataset.suggested, `Now labelled ${row.dataset.suggested}.`),
  keep(row) {
    setKept(row, true);
    settle(row, `Kept as ${row.dataset.label}.`);
  },
  undo(row) {
    const wasKept = kept().includes(nameOf(row.dataset));
    setKept(row, false);
    if (wasKept) settle(row, "");
    else relabel(row, row.dataset.label, "");
  },
};
element.addEventListener("click", (event) => {
  const action = event.target.closest("[data-do]"), page = event.target.closest("[data-start]");
  if (action) actions[action.dataset.do](action.closest("li"));
  if (page) trigger("turn", { start: Number(page.dataset.start) });
});
element.addEventListener("change", (event) => {
  if (event.target.tagName !== "INPUT") return;
  const label = event.target.value.trim(), row = event.target.closest("li");
  if (!label) return;
  const isKnown = [...element.querySelectorAll("#suspect-labels option")].some((option) => option.value === label);
  event.target.value = "";
  if (isKnown) relabel(row, label, `Now labelled ${label}.`);
  else modiste.say(`'${label}' is no label of ${row.dataset.target}; choose one of the list.`);
});
const showKept = () => {
  const names = new Set(kept());
  for (const row of element.querySelectorAll("li[data-item]:not(.m-settled)"))
    if (names.has(nameOf(row.dataset))) settle(row, `Kept as ${row.dataset.label}.`);
};
watch("value", showKept);
