// Shows one part of the catalog at a time. A part registers itself as modiste.parts[name] = { look() { ... } }, which is
// called when it is shown, and again once the catalog has changed.
const looked = new Set();
const buttons = [...element.querySelectorAll("[data-part]")];
const look = (part) => {
  if (document.body.dataset.tab !== "catalog" || looked.has(part)) return;
  if (!modiste.parts?.[part]) return setTimeout(look, 100, part);
  looked.add(part);
  modiste.parts[part].look();
};
const show = (part) => {
  document.body.dataset.part = part;
  for (const button of buttons) {
    if (button.dataset.part === part) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  look(part);
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-part]");
  if (!button) return;
  show(button.dataset.part);
  modiste.link({ part: button.dataset.part });
});
modiste.catalog = {
  show,
  changed() {
    looked.clear();
    look(document.body.dataset.part);
  },
};
// Jobs are shown in several parts; they are stopped here.
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-cancel]");
  if (!button) return;
  button.disabled = true;
  const refusal = await server.cancel(button.dataset.cancel);
  if (refusal) {
    modiste.say(refusal);
    button.disabled = false;
  }
});
const asked = new URL(location.href).searchParams.get("part");
show(buttons.some((button) => button.dataset.part === asked) ? asked : "overview");
new MutationObserver(() => look(document.body.dataset.part)).observe(document.body, { attributeFilter: ["data-tab"] });
