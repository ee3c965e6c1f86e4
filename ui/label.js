// Answers: a bar shows why its label is likely, "Show why" the label that is chosen. Triggers "why".
const WHERE = ["head", "targets", "allowed", "top", "bias", "coverage"];
const USUAL = ["best", "[]", "All", "5", "1", "0.9"];
const written = (option) => (Array.isArray(option) ? JSON.stringify(option) : String(option ?? ""));
const pressed = (card) => card.querySelector("[data-why][aria-pressed=true]") ?? card.querySelector("[data-why]");
const explain = (bar) => {
  if (!bar) return;
  for (const other of bar.closest("article").querySelectorAll("[data-why]")) other.setAttribute("aria-pressed", String(other === bar));
  modiste.labels.explained = { label: bar.dataset.why, target: bar.dataset.target, head: bar.dataset.head };
  trigger("why", modiste.labels.explained);
  document.getElementById("label-why")?.scrollIntoView({ behavior: "smooth", block: "nearest" });
};
element.addEventListener("click", (event) => {
  const bar = event.target.closest("[data-why]");
  if (bar) explain(bar);
  else if (event.target.closest("[data-show-why]")) explain(pressed(event.target.closest("article")));
});
modiste.labels = {
  explained: null,
  // Called as a question goes out: dims what it will replace, and writes what is asked into the address.
  asking(...options) {
    element.setAttribute("aria-busy", "true");
    modiste.labels.explained = null;
    if (modiste.tab === "label") modiste.link(Object.fromEntries(WHERE.map((name, place) => [name, written(options[place]) === USUAL[place] ? null : written(options[place])])));
  },
  answered() { element.removeAttribute("aria-busy"); },
  // By another method.
  again() { if (modiste.labels.explained) trigger("why", modiste.labels.explained); },
};
